# shellcheck shell=bash
# buildah and podman, which need no daemon, and the image that a Dockerfile begins with. No registry
# is asked for it: it is made of the packages of Debian's unstable release, which has this Python.
install_containers() {
    local directory=$1 version=3.14 root=$1/root mirror run
    # Not crun, which wants to own the cgroups. netavark publishes ports by iptables, and a pod begins
    # with catatonit.
    apt_install buildah podman runc netavark iptables catatonit debootstrap

    mirror=$(apt-cache policy base-files | awk '$2 ~ /^http/ { print $2; exit }')
    as_root debootstrap --variant=minbase --include="ca-certificates,python$version,python$version-venv" \
        sid "$root" "$mirror" >"$directory/debootstrap.log"
    # Where the official image has them: `python` and `pip`, without Debian's mark against installing.
    as_root chroot "$root" "python$version" -m venv /usr/local

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
