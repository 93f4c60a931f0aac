#!/usr/bin/env bash
# Pin every Python package of the images, with the checksums of its files: containers/locks/*.txt.
# Run from anywhere, with uv on PATH, when a dependency in pyproject.toml changes or a fix is due; then build and try the
# image (docs/containers.md) before committing the result. `lock.sh --upgrade` takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."

# The Python of the base image. An older C library than the image's own is asked for, so that wheels fit other bases too.
settings=(--python-version 3.13 --python-platform x86_64-manylinux_2_28 --no-config --quiet
          --generate-hashes --no-annotate --no-header "$@")

# docopt, which pybids needs, is published as source only; it is one module without compiled parts
wheels=(--only-binary ':all:' --no-binary docopt)

head() {
    printf '# Made by containers/lock.sh: do not edit.\n# %s\n' "$1"
}

lock() {  # NAME TITLE SOURCE [OPTION...]
    local name=$1 title=$2
    shift 2
    local file=containers/locks/$name.txt
    uv pip compile "${settings[@]}" "${wheels[@]}" --output-file "$file" "$@" >/dev/null
    { head "$title"; cat "$file"; } > "$file.part"
    mv "$file.part" "$file"
}

lock cpu 'Packages of the CPU image' pyproject.toml
lock gpu 'Packages of the CUDA image' pyproject.toml --extra gpu

# What turns docopt into a wheel; not in the images
printf 'setuptools>=80\nwheel>=0.45\n' > containers/locks/build.in
lock build 'Tools that build packages published as source; not in the images' containers/locks/build.in
rm containers/locks/build.in
