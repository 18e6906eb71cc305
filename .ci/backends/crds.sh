# shellcheck shell=bash
# The custom resource definitions of the Prometheus Operator, Argo CD and Flux, from their Go modules.
install_crds() {
    local directory=$1
    copy github.com/prometheus-operator/prometheus-operator@v0.85.0 \
        example/prometheus-operator-crd/monitoring.coreos.com_{prometheusrules,servicemonitors}.yaml
    copy github.com/argoproj/argo-cd/v3@v3.3.19 manifests/crds/application-crd.yaml
    copy github.com/fluxcd/kustomize-controller@v1.7.3 \
        config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml
    chmod u+w "$directory"/*.yaml
}

# copy MODULE@VERSION PATH... into $directory
copy() {
    local module
    module=$(go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    (cd "$module" && cp "${@:2}" "$directory")
}
