#!/usr/bin/env bash
# Build the image without an image registry: a Debian base made with debootstrap, then the Dockerfile itself with buildah.
# Needs root, the Debian packages debootstrap and buildah, a Debian mirror, a package index, and 6 GB where it works.
#
#   containers/build_from_debootstrap.sh [--flavour cpu|gpu] [--fsl non-commercial] [--tag NAME] [--work DIR] [--keep-base]
#
# The image lies in a store of its own, below DIR (default: a new folder below $TMPDIR), which is printed at the end.
# pip's own settings on this machine (index, proxy, certificates) reach the build as secrets and stay out of the image.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
flavour=cpu fsl='' tag=shivacmb work='' keep_base=no
suite=trixie
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

fail() {
    echo "build_from_debootstrap: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --flavour) flavour=$2; shift 2 ;;
        --tag) tag=$2; shift 2 ;;
        --work) work=$2; shift 2 ;;
        --fsl) fsl=$2; shift 2 ;;
        --keep-base) keep_base=yes; shift ;;
        *) fail "unknown option <$1>; the first lines of this file say how it is called" 64 ;;
    esac
done

for program in debootstrap buildah; do
    command -v "$program" >/dev/null || fail "<$program> is missing: apt-get install debootstrap buildah" 69
done
[ "$(id -u)" = 0 ] || fail 'debootstrap needs root' 77
wheels=("$root"/dist/shivacmb-*.whl)
if [ "${#wheels[@]}" != 1 ] || ! [ -f "${wheels[0]}" ]; then
    fail "expected one wheel in <$root/dist>, found: ${wheels[*]##*/}; empty dist/ and run: python -m build --wheel" 66
fi

[ -n "$work" ] || work=$(mktemp -d "${TMPDIR:-/tmp}/shivacmb-image-XXXXXX")
mkdir -p "$work"
work=$(cd "$work" && pwd)
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

store() {
    buildah --root "$work/store" --runroot "$work/run" "$@"
}

# 1. The base: what debian:trixie-slim is too, but for files of documentation
if ! [ -s "$work/base.tar" ]; then
    rm -rf "$work/base"
    debootstrap --variant=minbase "$suite" "$work/base" "$mirror" > "$work/debootstrap.log" || \
        fail "debootstrap failed; the end of <$work/debootstrap.log> says why"
    {
        echo "deb $mirror $suite main"
        echo "deb $mirror $suite-updates main"
        echo "deb ${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security} $suite-security main"
    } > "$work/base/etc/apt/sources.list"
    echo 'Acquire::Languages "none";' > "$work/base/etc/apt/apt.conf.d/99no-languages"
    mkdir -p "$work/base/etc/dpkg/dpkg.cfg.d"
    printf 'path-exclude /usr/share/%s/*\n' doc man locale > "$work/base/etc/dpkg/dpkg.cfg.d/slim"
    tar -C "$work/base" --numeric-owner -cf "$work/base.tar.part" \
        --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./dev/*' .
    mv "$work/base.tar.part" "$work/base.tar"
    rm -rf "$work/base"
fi
mkdir -p "$work/context"
ln -f "$work/base.tar" "$work/context/base.tar"
printf 'FROM scratch\nADD base.tar /\nCMD ["bash"]\n' > "$work/context/Dockerfile"
store bud --isolation chroot --tag shivacmb-base --file "$work/context/Dockerfile" "$work/context" > "$work/base.log"
rm -rf "$work/context"
[ "$keep_base" = yes ] || rm -f "$work/base.tar"

# 2. pip's settings of this machine. Indexes that are folders here are not there inside the build, so they are left out.
{
    echo '[global]'
    python3 -m pip config list | sed -nE \
        "s/^(global|:env:)\.(index-url|extra-index-url|proxy|trusted-host|timeout|retries)='(.*)'$/\2 = \3/p" | \
        grep -v 'file:' || true
} > "$secrets/pip.conf"
ca=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
: > "$secrets/ca.pem"
[ ! -f "$ca" ] || cat "$ca" > "$secrets/ca.pem"

# 3. The Dockerfile
version=$(basename "${wheels[0]}" | cut -d- -f2)
revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
store bud --isolation chroot --pull-never --layers=false \
    --secret "id=pip.conf,src=$secrets/pip.conf" --secret "id=ca.pem,src=$secrets/ca.pem" \
    --build-arg BASE=localhost/shivacmb-base --build-arg FLAVOUR="$flavour" --build-arg FSL="$fsl" \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    --tag "$tag" --file "$root/containers/Dockerfile" "$root"

echo "image $tag in the store <$work/store>:"
store images --format '{{.Name}}:{{.Tag}} {{.Size}}' "$tag"
echo "try it:    containers/try.sh --work $work $tag"
echo "export it: buildah --root $work/store --runroot $work/run push $tag docker-archive:$tag.tar:$tag"
echo "remove it: umount $work/store/overlay; rm -rf $work"
