# activate.sh RELEASE STAMP: switch to a release and check its health, or go back to the one before.
# Healthy means ready within a minute, and still the same process five seconds later.
set -u
# Going back is finished even when the connection is cut.
trap '' HUP PIPE
release=$1 stamp=$2
prefix=/opt/fer-agent
units=/etc/systemd/system
previous=$(readlink "$prefix/venv")

switch_to() {
    ln -sfn "$1" "$prefix/venv.new" && mv -T "$prefix/venv.new" "$prefix/venv" || return 1
    mkdir -p "$units/fer-agent.service.d" || return 1
    rm -f "$units"/fer-agent.service.d/10-*.conf "$units"/fer-agent-sync.service.d/10-*.conf
    cp "$1/bundle/systemd/fer-agent.service" "$units/" || return 1
    # A release from before there was a sync has no units for it.
    for unit in fer-agent-sync.service fer-agent-sync.timer; do
        [ ! -f "$1/bundle/systemd/$unit" ] || cp "$1/bundle/systemd/$unit" "$units/" || return 1
    done
    for dropin in "$1"/bundle/systemd/10-*.conf; do
        [ -f "$dropin" ] && { cp "$dropin" "$units/fer-agent.service.d/" || return 1; }
    done
    for dropin in "$1"/bundle/systemd/fer-agent-sync.service.d/10-*.conf; do
        [ -f "$dropin" ] || continue
        mkdir -p "$units/fer-agent-sync.service.d" || return 1
        cp "$dropin" "$units/fer-agent-sync.service.d/" || return 1
    done
    systemctl daemon-reload && systemctl -q enable fer-agent.service
}

main_pid() { systemctl show fer-agent.service -p MainPID --value; }

healthy() {
    systemctl reset-failed fer-agent.service 2>/dev/null
    timeout 60 systemctl restart fer-agent.service 2>/dev/null || return 1
    pid=$(main_pid)
    for _ in 1 2 3 4 5; do
        sleep 1
        systemctl -q is-active fer-agent.service && [ "$(main_pid)" = "$pid" ] || return 1
    done
}

started=$(date '+%Y-%m-%d %H:%M:%S')
if switch_to "$release" && healthy; then
    systemctl -q enable --now fer-agent-sync.timer
    echo "$stamp" >"$prefix/active"
    for old in "$prefix"/releases/*; do
        [ "$old" = "$release" ] || [ "$old" = "$previous" ] || rm -rf "$old"
    done
    exit 0
fi
echo "the service did not come up healthy:" >&2
# First what systemd says of it, then its own last words without a traceback's body.
for who in UNIT _SYSTEMD_UNIT; do
    journalctl "$who=fer-agent.service" --since "$started" -o cat --no-pager -q |
        grep -v -e '^ ' -e '^Start' -e '^Stop' -e '^Traceback' | tail -n 3 >&2
done
systemctl stop fer-agent.service
if [ -n "$previous" ] && [ "$previous" != "$release" ] && [ -f "$previous/.complete" ]; then
    if switch_to "$previous" && healthy; then
        echo "went back to $(basename "$previous"), which runs" >&2
    else
        echo "went back to $(basename "$previous"), which does not come up either" >&2
    fi
    rm -rf "$release"
fi
exit 1
