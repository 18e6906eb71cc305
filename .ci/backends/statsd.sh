# shellcheck shell=bash
install_statsd() {
    local directory=$1
    command -v npm >/dev/null || apt_install nodejs npm
    # Without the optional modules, which would be compiled for other backends than the test's.
    npm install --prefix "$directory" --omit=optional --ignore-scripts --no-audit --no-fund \
        statsd@0.9.0
}
