# check_imports.sh RELEASE MODULE...: import each in a separate process before it is trusted. A wheel
# built for a newer processor dies here with an illegal instruction, and not in the service.
set -u
export ORT_DISABLE_TELEMETRY=1
release=$1
shift
for module in "$@"; do
    said=$(timeout 120 "$release/bin/python" -I -c "import $module" 2>&1)
    status=$?
    case $status in
    0) ;;
    132) echo "$module: illegal instruction on this processor" >&2; exit 1 ;;
    124) echo "$module: the import did not end within two minutes" >&2; exit 1 ;;
    *) echo "$module: $(echo "$said" | tail -n 1) (exit $status)" >&2; exit 1 ;;
    esac
done
rm -rf "$release/bundle/wheels" "$release/bundle/agent"
touch "$release/.complete"
