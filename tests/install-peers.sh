#!/bin/sh
# Install the programs that the tests talk to as real peers: as root on Debian and its children. Elsewhere it says what
# is missing and goes on: the tests that need it skip with the same words (and fail with CI=true).
set -eu

# axe-core judges the page's accessibility. It is a file, of a fixed version.
axe="$(dirname "$0")/.peers/axe.min.js"
if [ ! -e "$axe" ]; then
    python3 - "$axe" <<'END' || echo "not fetched: axe-core (registry.npmjs.org). The test asks an older one."
import hashlib, io, pathlib, sys, tarfile, urllib.request
package = urllib.request.urlopen("https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz", timeout=60).read()
if hashlib.sha256(package).hexdigest() != "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745":
    sys.exit("axe-core is not what it was")
script = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/axe.min.js").read()
pathlib.Path(sys.argv[1]).parent.mkdir(exist_ok=True)
pathlib.Path(sys.argv[1]).write_bytes(script)
END
fi

missing=""
# program:package
for peer in cc:build-essential sipp:sip-tester baresip:baresip-core kamailio:kamailio linphonec:linphone-cli turnserver:coturn openssl:openssl gnutls-cli:gnutls-bin chromium:chromium firefox-esr:firefox-esr; do
    command -v "${peer%%:*}" >/dev/null 2>&1 || missing="$missing ${peer##*:}"
done
# What the `ten` detector is linked with; the list of libraries is not in everybody's PATH.
{ PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q 'libc++\.so\.1'; } || missing="$missing libc++1"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing ..."
    export DEBIAN_FRONTEND=noninteractive
    # Kamailio's package would start a proxy of its own: Debian asks this file whether services may start.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -qq || true
    # shellcheck disable=SC2086  # a list of packages
    if apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    # What one of them lacks, the others may have.
    wanted="$missing"
    missing=""
    for package in $wanted; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null || missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
fi
echo "not installed:$missing (Debian packages). The tests that need them are skipped."
