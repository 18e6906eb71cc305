# shellcheck shell=bash
# statsd_exporter, which shows StatsD's metrics to Prometheus, built from its Go module.
install_statsd_exporter() {
    local directory=$1
    GOBIN=$directory/bin go install -p 2 -buildvcs=false -trimpath -ldflags="-s -w" \
        github.com/prometheus/statsd_exporter@v0.31.0
}
