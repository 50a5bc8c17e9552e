# Roots of Debian releases, made by debootstrap: for scripts that run as root and source this file.
#
# It sets $project, $cache, $scratch (which goes at the end, with what is mounted below it) and these functions.
umask 022
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${ROOTS:-/var/cache/turnsvr-roots}
mirror=${MIRROR:-http://deb.debian.org/debian}
scratch=$(mktemp -d /var/tmp/turnsvr-roots-XXXX)
machine=

end() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
    # What tests have mounted there as well, such as network namespaces.
    for place in $(cut -d ' ' -f 2 /proc/self/mounts | grep "^$scratch/" | tac); do
        umount --lazy "$place" 2>/dev/null || true
    done
    rm -rf --one-file-system "$scratch"
}
trap end EXIT

say() { echo "roots: $*"; }

fail() {
    say "$*"
    return 1
}

# A fresh root of suite $1 at $2.
fresh() {
    mkdir -p "$cache" "$2"
    if [ ! -e "$cache/$1.tar" ]; then
        say "$1: debootstrap, a minute or two"
        debootstrap --variant=minbase \
            --include=python3,python3-venv,ca-certificates,systemd,systemd-sysv,dbus,iproute2,procps \
            "$1" "$scratch/$1-new" "$mirror" >"$scratch/log" 2>&1 || { tail -20 "$scratch/log"; return 1; }
        tar -C "$scratch/$1-new" -cf "$cache/$1.tar.new" .
        mv "$cache/$1.tar.new" "$cache/$1.tar"
        rm -rf "$scratch/$1-new"
    fi
    tar -C "$2" -xf "$cache/$1.tar"
    chmod 755 "$2"
}

# Has packages be fetched in a root, by this machine's names and authorities.
connect() {
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
    for place in proc dev; do
        mount --rbind "/$place" "$1/$place" && mount --make-rslave "$1/$place"
    done
}

in_root() {
    local root=$1
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        chroot "$root" "$@"
}

get() {
    local root=$1
    shift
    in_root "$root" apt-get -qq install --yes --no-install-recommends "$@" >"$scratch/log" 2>&1 ||
        { tail -20 "$scratch/log"; return 1; }
}

# The package, built with all that it needs in a root at $scratch/SUITE-build, which stays.
build() {
    local suite=$1 root=$scratch/$1-build
    fresh "$suite" "$root"
    connect "$root"
    in_root "$root" apt-get -qq update 2>/dev/null
    get "$root" gcc libc6-dev python3-dev dpkg-dev git make
    git clone --quiet "$project" "$root/source"
    in_root "$root" /source/scripts/deb /packages
    mkdir -p "$project/dist"
    cp "$root"/packages/*.deb "$project/dist/"
    cp "$root"/packages/*.deb "$scratch/$suite.deb"
}

# The package for suite $1 at $scratch/SUITE.deb: one that lies in $PACKAGES, or else a new one.
package() {
    local ready=("${PACKAGES:-/nonexistent}"/turnsvr_*_"$1"_*.deb)
    if [ -e "${ready[-1]}" ]; then
        cp "${ready[-1]}" "$scratch/$1.deb"
    else
        say "$1: building the package"
        build "$1"
    fi
}
