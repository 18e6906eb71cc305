# shellcheck shell=bash
# Debian's Chromium, which playwright drives in place of a build of its own, and axe-core, which the
# page is checked with for what keeps people out.
install_chromium() {
    local directory=$1
    command -v chromium >/dev/null || apt_install chromium fonts-dejavu-core
    command -v npm >/dev/null || apt_install nodejs npm
    npm install --prefix "$directory" --ignore-scripts --no-audit --no-fund axe-core@4.11.0
}
