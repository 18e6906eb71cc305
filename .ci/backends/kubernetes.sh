# shellcheck shell=bash
# kustomize, built from its Go module: what `kubectl kustomize` has inside.
install_kubernetes() {
    local directory=$1
    GOBIN=$directory/bin go install -p 2 -buildvcs=false -trimpath -ldflags="-s -w" \
        sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
    "$directory/bin/kustomize" version
}
