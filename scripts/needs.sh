#!/bin/sh
# What the system must bring along: `needs.sh run` and `needs.sh test`.
# As root on Debian or Ubuntu it is installed through apt; else it is named, with the command.
set -eu

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Missing on this system: $*. Install it (on Debian or Ubuntu: apt-get install $*)." >&2
        return 1
    fi
    echo "Installing $* ..." >&2
    without_services=/usr/sbin/policy-rc.d # dpkg asks it whether it may start a service
    if [ ! -e "$without_services" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$without_services"
        chmod +x "$without_services"
        trap 'rm -f "$without_services"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

case "${1:-}" in
pip) # PYTHON
    "$2" -m pip --version >/dev/null 2>&1 || install python3-pip
    "$2" -m pip --version >/dev/null || exit 1
    ;;
run) # MONGOD ...
    shift
    for mongod in "$@"; do
        if [ -x "$mongod" ] && ldd "$mongod" 2>/dev/null | grep -q 'libcurl.*not found'; then
            install libcurl4 || true # mongod's own sentence follows
        fi
    done
    ;;
test)
    missing=
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
    command -v chromium >/dev/null || missing="$missing chromium"
    command -v npm >/dev/null || missing="$missing npm"
    ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
    for package in $missing; do
        install "$package" || echo "Tests that need $package are skipped; with CI=true they fail." >&2
    done
    ;;
*)
    echo "usage: $0 pip PYTHON | run MONGOD ... | test" >&2
    exit 2
    ;;
esac
