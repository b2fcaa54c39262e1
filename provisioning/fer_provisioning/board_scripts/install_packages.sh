# install_packages.sh RELEASE EXTRAS OFFLINE: install the bundle's wheel and what it needs.
# pip runs straight from its own wheel, so the board needs neither ensurepip nor python3-venv.
set -eu
release=$1 extras=$2 offline=$3
bundle=$release/bundle
exec 9>"$(dirname "$release")/.lock" # see create_release.sh
flock -w 900 9
wheel=$(ls "$bundle"/agent/fer_agent-*.whl)
if [ -d /usr/local/cuda ]; then
    export CUDA_HOME=/usr/local/cuda PATH="/usr/local/cuda/bin:$PATH"
fi
set -- install --no-input --disable-pip-version-check --no-cache-dir --no-warn-script-location -q \
    --constraint "$bundle/constraints.txt" --find-links "$bundle/wheels"
if [ "$offline" = yes ]; then
    set -- "$@" --no-index
fi
"$release/bin/python" "$(ls "$bundle"/wheels/pip-*.whl)/pip" "$@" "fer-agent$extras @ file://$wheel"
