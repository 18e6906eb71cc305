# shellcheck shell=bash
# buildah and podman, which need no daemon, and the image that a Dockerfile begins with. No registry
# is asked for it: it is made of Debian's packages and of this machine's own Python.
install_containers() {
    local directory=$1 version=3.13 root=$1/root python prefix mirror run
    # Not crun, which wants to own the cgroups. netavark publishes ports by iptables, and a pod begins
    # with catatonit.
    apt_install buildah podman runc netavark iptables catatonit debootstrap

    python=$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version.*/bin/python$version" | tail -n 1) ||
        python=$(type -P "python$version")
    prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
    if [ "$prefix" = /usr ]; then
        echo "containers: needs a Python $version that has a directory of its own" >&2
        return 1
    fi

    mirror=$(apt-cache policy base-files | awk '$2 ~ /^http/ { print $2; exit }')
    as_root debootstrap --variant=minbase \
        --include=ca-certificates,libexpat1,libffi8,libreadline8,libsqlite3-0,libssl3,libuuid1 \
        bookworm "$root" "$mirror" >"$directory/debootstrap.log"
    (
        cd "$prefix" || exit
        tar --exclude=__pycache__ --exclude='*.a' --exclude="lib/python$version/test" \
            --exclude="lib/python$version/site-packages/*" -c bin/python* include lib
    ) | as_root tar -C "$root/usr/local" --no-same-owner -x
    as_root chroot "$root" ldconfig
    as_root chroot "$root" "/usr/local/bin/python$version" -m ensurepip --default-pip \
        >"$directory/ensurepip.log" 2>&1

    # podman takes no path of more than 50 characters.
    run=$(mktemp -d)
    as_root tar -C "$root" --exclude='./var/cache/*' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' -c . |
        as_root podman --root "$directory/images" --runroot "$run" \
            --storage-driver overlay import --quiet --change 'CMD ["python3"]' \
            --change ENV=PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
            - "docker.io/library/python:$version-slim"
    as_root rm -r "$root" "$run"
}
