#!/usr/bin/env bash
# Try an image as a careful cluster would run it: no network, read-only root, read-only input, a user that the image does
# not know. Needs root. Prints what was checked; exits with 1 at the first thing that is not as it should be.
#
#   containers/try.sh [--work DIR] [--runner podman|docker|apptainer|chroot] [--user UID] [--plain COMMAND] [IMAGE]
#
# DIR is that of build_from_debootstrap.sh; without it, podman's own store is used. The tables and label maps are compared
# byte by byte with those of a plain run of COMMAND (default: shivacmb on PATH; '' leaves the comparison out). Where podman
# cannot start a container (inside many containers and sandboxes), the image's own files are entered with chroot in
# namespaces of their own instead, with the same restrictions. An IMAGE that ends in .sif is run by Apptainer, with the
# rights of UID (default: 12345), which has to be a user of this machine then and to be allowed to read IMAGE.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work='' runner='' plain=shivacmb image=shivacmb user=12345
while [ $# -gt 0 ]; do
    case $1 in
        --work) work=$2; shift 2 ;;
        --runner) runner=$2; shift 2 ;;
        --plain) plain=$2; shift 2 ;;
        --user) user=$2; shift 2 ;;
        -*) echo "try: unknown option <$1>" >&2; exit 64 ;;
        *) image=$1; shift ;;
    esac
done
stores=()
[ -z "$work" ] || stores=(--root "$work/store" --runroot "$work/run")
place=$(mktemp -d "${TMPDIR:-/tmp}/shivacmb-try-XXXXXX")
container=''

cleanup() {
    if [ -n "$container" ]; then
        buildah "${stores[@]}" umount "$container" >/dev/null || true
        buildah "${stores[@]}" rm "$container" >/dev/null || true
    fi
    rm -rf "$place"
}
trap cleanup EXIT

ok() {
    echo "ok   $1"
}

fail() {
    echo "FAIL $1" >&2
    exit 1
}

# in_RUNNER: [--env NAME=VALUE]... [--no-tmp] PROGRAM [ARGUMENT...]
in_engine() {
    local options=() scratch=(--tmpfs '/tmp:rw,size=2g,mode=1777')
    while :; do
        case $1 in
            --env) options+=(--env "$2"); shift 2 ;;
            --no-tmp) scratch=("${no_tmp[@]}"); shift ;;
            *) break ;;
        esac
    done
    local program=$1
    shift
    # Some sandboxes let no process raise its limits: low ones are asked for
    "${engine[@]}" run --rm --network none --read-only \
        --user "$user:$user" --cap-drop all --security-opt no-new-privileges \
        --ulimit nofile=1024:1024 --ulimit nproc=4000:4000 "${scratch[@]}" "${options[@]}" \
        --volume "$place/input:/data:ro" --volume "$place/out:/out" --entrypoint "$program" "$image" "$@"
}

in_apptainer() {
    local options=() scratch=(--workdir "$place/work")
    while :; do
        case $1 in
            --env) options+=(--env "$2"); shift 2 ;;
            --no-tmp) scratch=(--no-mount tmp); shift ;;
            *) break ;;
        esac
    done
    setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups env -i PATH="$PATH" HOME="$place/home" \
        apptainer --quiet exec --cleanenv --containall --net --network none "${scratch[@]}" "${options[@]}" \
        --bind "$place/input:/data:ro" --bind "$place/out:/out" "$image" "$@"
}

in_chroot() {
    local options=() tmp=yes
    while :; do
        case $1 in
            --env) options+=("$2"); shift 2 ;;
            --no-tmp) tmp=no; shift ;;
            *) break ;;
        esac
    done
    # shellcheck disable=SC2016  # the inner shell expands these
    unshare --mount --net --pid --ipc --uts --fork -- /bin/bash -euc '
        tree=$1 place=$2 user=$3 tmp=$4
        shift 4
        mount --bind "$tree" "$tree"
        mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
        for device in null zero random urandom; do
            touch "$tree/dev/$device"
            mount --bind "/dev/$device" "$tree/dev/$device"
        done
        mkdir "$tree/dev/shm"
        mount -t tmpfs -o mode=1777,size=64m tmpfs "$tree/dev/shm"
        mount -t proc proc "$tree/proc"
        mkdir -p "$tree/data" "$tree/out"
        mount --bind "$place/input" "$tree/data"
        mount -o remount,bind,ro "$tree/data"
        mount --bind "$place/out" "$tree/out"
        if [ "$tmp" = yes ]; then mount -t tmpfs -o mode=1777,size=2g tmpfs "$tree/tmp"; fi
        mount -o remount,bind,ro "$tree"
        cd "$tree/tmp"
        exec chroot "$tree" setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set -all \
            --no-new-privs /usr/bin/env -i -C /tmp "$@"
    ' bash "$tree" "$place" "$user" "$tmp" "${environment[@]}" "${options[@]}" "$@"
}

podman_works() {
    command -v podman >/dev/null || return 1
    local candidate
    no_tmp=(--read-only-tmpfs=false)
    for candidate in '' runc crun; do
        engine=(podman "${stores[@]}" --cgroup-manager cgroupfs)
        if [ -n "$candidate" ]; then
            command -v "$candidate" >/dev/null || continue
            engine+=(--runtime "$candidate")
        fi
        if in_engine true 2>"$place/podman.log"; then return 0; fi
    done
    return 1
}

# A copy of the demo that nobody may write, and an output folder of the unknown user
cp -rL "$root/bids_examples/demo" "$place/input"
chmod -R a+rX,a-w "$place/input"
mkdir "$place/out" "$place/work" "$place/home"
chown "$user:$user" "$place/out" "$place/work" "$place/home"
chmod 755 "$place"

if [ "$runner" = apptainer ] || [[ -z $runner && $image = *.sif ]]; then
    inside() { in_apptainer "$@"; }
    inside true || fail 'Apptainer cannot start the image'
    ok "$(apptainer --version) starts the image"
elif [ "$runner" = docker ]; then
    engine=(docker) no_tmp=()
    inside() { in_engine "$@"; }
    inside true || fail 'Docker cannot start the image'
    ok "Docker $(docker version --format '{{.Server.Version}}') starts the image"
elif [ "$runner" != chroot ] && podman_works; then
    inside() { in_engine "$@"; }
    ok "${engine[*]} starts the image"
elif [ "$runner" = podman ]; then
    fail "podman cannot start a container here: $(tail -1 "$place/podman.log")"
else
    container=$(buildah "${stores[@]}" from --pull-never "$image")
    tree=$(buildah "${stores[@]}" mount "$container")
    mapfile -t environment < <(buildah "${stores[@]}" inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' \
        "$container" | grep '=')
    inside() { in_chroot "$@"; }
    ok 'the files of the image are entered with chroot, in namespaces of their own'
fi

[ "$(inside id -u)" = "$user" ] || fail 'the user is not the one asked for'
if inside touch /x 2>/dev/null; then fail 'the root file system can be written'; fi
if inside touch /data/x 2>/dev/null; then fail 'the input can be written'; fi
interfaces=$(inside python3 -c 'import socket; print(*[name for _, name in socket.if_nameindex()])')
[ "$interfaces" = lo ] || fail "there is a network: $interfaces"
ok "user $user, read-only root and input, no network"

version=$(inside cat /version)
[ "shivacmb $version" = "$(inside shivacmb --version)" ] || fail "/version says $version, shivacmb --version another"
ok "/version: $version"
inside shivacmb-tools models list >"$place/models.txt" || fail 'shivacmb-tools cannot be reached'
ok "models: $(grep -c . "$place/models.txt") lines of shivacmb-tools models list"

inside shivacmb /data /out participant >"$place/participant.log" 2>&1 || { cat "$place/participant.log" >&2; fail 'participant'; }
inside shivacmb /data /out group >"$place/group.log" 2>&1 || { cat "$place/group.log" >&2; fail 'group'; }
ok "participant and group: $(find "$place/out" -type f | wc -l) files"
if grep -iE 'warn|error|traceback|cannot|denied|read-only|font' "$place/participant.log" "$place/group.log" >&2; then
    fail 'the runs complained'
fi
strangers=$(find "$place/out" ! -uid "$user" -o -type f ! -perm -u=rw,g=r,o=r)
[ -z "$strangers" ] || fail "not the user's, or not readable by others under umask 022: $strangers"
ok 'every output belongs to the user and follows the umask'

# A place for temporary files other than /tmp, a host folder that is not there, and none at all
mkdir "$place/out/tmp"
chown "$user:$user" "$place/out/tmp"
inside --no-tmp --env TMPDIR=/out/tmp shivacmb /data /out/second participant --participant-label 01 --quiet || fail 'with TMPDIR'
rest=$(find "$place/out/tmp" -mindepth 1 ! -path "*/shivacmb-$user*")
[ -z "$rest" ] || fail "left in TMPDIR: $rest"
ok 'with TMPDIR on a bound folder and no /tmp'
inside --env TMPDIR=/local/scratch/of-the-host shivacmb /data /out/second participant --participant-label 01 --quiet \
    2>"$place/tmpdir.log" || fail 'with a TMPDIR that is not bound'
grep -q 'TMPDIR </local/scratch/of-the-host> cannot be written inside the container' "$place/tmpdir.log" || \
    fail 'nothing is said of a TMPDIR that is not bound'
code=0
inside --no-tmp shivacmb /data /out/third participant 2>"$place/notmp.log" || code=$?
if [ "$code" != 73 ] || ! grep -q 'no folder for temporary files' "$place/notmp.log"; then
    fail "without any place for temporary files: exit code $code, $(cat "$place/notmp.log")"
fi
ok 'a TMPDIR that is not bound is said; without any temporary folder the exit code is 73'
inside --env SHIVACMB_UMASK=007 --env HOME=/nowhere shivacmb /data /out/group-only participant --participant-label 01 --quiet || \
    fail 'with a umask'
others=$(find "$place/out/group-only" -type f -perm /o=rwx)
[ -z "$others" ] || fail "SHIVACMB_UMASK=007 is not followed: $others"
ok 'SHIVACMB_UMASK'

if [ -n "$plain" ]; then
    mkdir "$place/plain"
    "$plain" "$place/input" "$place/plain" participant --quiet
    "$plain" "$place/input" "$place/plain" group --quiet
    compared=0
    while IFS= read -r -d '' file; do
        cmp "$place/plain/$file" "$place/out/$file" || {
            [[ $file != *.tsv ]] || diff "$place/plain/$file" "$place/out/$file" >&2 || true
            fail "<$file> differs from the plain run"
        }
        compared=$((compared + 1))
    done < <(cd "$place/plain" && find . \( -name '*.tsv' -o -name '*_dseg.nii.gz' -o -name '*_mask.nii.gz' \) -print0)
    [ "$compared" -gt 9 ] || fail "only $compared files could be compared"
    ok "$compared tables and label maps have the bytes of a plain run ($("$plain" --version))"
fi
