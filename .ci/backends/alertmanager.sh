# shellcheck shell=bash
# Alertmanager and amtool, built from their Go module: Debian's reads templates of its own from /usr.
install_alertmanager() {
    local directory=$1
    GOBIN=$directory/bin go install -p 2 -buildvcs=false -trimpath -ldflags="-s -w" \
        github.com/prometheus/alertmanager/cmd/{alertmanager,amtool}@v0.28.1
}
