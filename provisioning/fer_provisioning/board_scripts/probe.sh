# What the installer needs to know of a board, as key=value lines. Runs as root; changes nothing.
[ -r /etc/os-release ] && . /etc/os-release
echo "os_id=$ID"
echo "os_version=$VERSION_ID"
echo "os_codename=$VERSION_CODENAME"
echo "os_name=$PRETTY_NAME"
echo "machine=$(uname -m)"
echo "architecture=$(dpkg --print-architecture 2>/dev/null)"
echo "model=$(tr -d '\000' 2>/dev/null </sys/firmware/devicetree/base/model)"
echo "tegra=$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
echo "l4t=$(dpkg-query -W -f '${Version}' nvidia-l4t-core 2>/dev/null)"
echo "python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
echo "python_venv=$(python3 -c 'import venv; print(1)' 2>/dev/null)"
echo "libc=$(python3 -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION"))' 2>/dev/null)"
echo "picamera2=$(python3 -c 'import importlib.util as u; print(u.find_spec("picamera2") and 1 or "")' 2>/dev/null)"
echo "headers=$(python3 -c 'import os, sysconfig as s; print(os.path.exists(s.get_path("include") + "/Python.h") and 1 or "")' 2>/dev/null)"
echo "compiler=$(command -v g++)"
echo "tensorrt=$(python3 -c 'import importlib.util as u; print(u.find_spec("tensorrt") and 1 or "")' 2>/dev/null)"
echo "nvcc=$(PATH=/usr/local/cuda/bin:$PATH command -v nvcc)"
echo "systemd=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
[ -d /run/systemd/system ] && echo "systemd_runs=1"
folder=/opt/fer-agent; [ -d "$folder" ] || folder=/opt; [ -d "$folder" ] || folder=/
echo "free_kib=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
echo "free_uploads_kib=$(df -Pk /var/tmp | awk 'NR == 2 { print $4 }')"
echo "current=$(readlink /opt/fer-agent/venv)"
for release in /opt/fer-agent/releases/*/.complete; do
    [ -f "$release" ] && echo "release=$(basename "$(dirname "$release")")"
done
echo "stamp=$(cat /opt/fer-agent/active 2>/dev/null)"
echo "config_sha256=$(sha256sum /etc/fer-agent/config.toml 2>/dev/null | cut -d ' ' -f 1)"
for secret in /etc/fer-agent/credentials/*; do
    [ -f "$secret" ] && echo "secret=$(basename "$secret") $(sha256sum "$secret" | cut -d ' ' -f 1)"
done
echo "active=$(systemctl is-active fer-agent.service 2>/dev/null)"
echo "restarts=$(systemctl show fer-agent.service -p NRestarts --value 2>/dev/null)"
echo "main_status=$(systemctl show fer-agent.service -p ExecMainStatus --value 2>/dev/null)"
echo "result=$(systemctl show fer-agent.service -p Result --value 2>/dev/null)"
echo "status_text=$(systemctl show fer-agent.service -p StatusText --value 2>/dev/null)"
echo "since=$(systemctl show fer-agent.service -p ActiveEnterTimestamp --value 2>/dev/null)"
echo "last_error=$(journalctl -u fer-agent.service -p 3 -n 1 -o cat --no-pager -q 2>/dev/null | tail -n 1)"
exit 0
