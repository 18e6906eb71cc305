# shellcheck shell=bash
# Python 3.14 and 3.15: Debian's unstable release, in a directory of its own.
install_pythons() {
    local directory=$1 mirror include
    apt_install debootstrap
    mirror=$(apt-cache policy base-files | awk '$2 ~ /^http/ { print $2; exit }')
    include=ca-certificates,git
    for version in 3.14 3.15; do
        include+=,python$version,python$version-venv
    done
    as_root debootstrap --variant=minbase --include="$include" sid "$directory/root" "$mirror" \
        >"$directory/debootstrap.log"
    # What reaches the package index here reaches it from there.
    if [ -e /etc/pip.conf ]; then
        as_root cp /etc/pip.conf "$directory/root/etc/pip.conf"
    fi
    as_root cp --remove-destination /etc/ssl/certs/ca-certificates.crt "$directory/root/etc/ssl/certs/"
    as_root cp /etc/resolv.conf /etc/hosts "$directory/root/etc/"
}
