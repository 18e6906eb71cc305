# shellcheck shell=bash
# The custom resource definitions of the Prometheus Operator, from its Go module.
install_crds() {
    local directory=$1 module
    module=$(go mod download -json github.com/prometheus-operator/prometheus-operator@v0.85.0 |
        sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    cp "$module"/example/prometheus-operator-crd/*_{prometheusrules,servicemonitors}.yaml "$directory"
    chmod u+w "$directory"/*.yaml
}
