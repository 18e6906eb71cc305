# shellcheck shell=bash
# Prometheus 3 and promtool, built from their Go module (Go 1.26.7 or later) without the service
# discovery of clouds.
install_prometheus() {
    local directory=$1
    GOBIN=$directory/bin go install -p 2 -buildvcs=false -trimpath -ldflags="-s -w" \
        -tags remove_all_sd github.com/prometheus/prometheus/cmd/{prometheus,promtool}@v0.316.0
}
