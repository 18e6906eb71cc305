# shellcheck shell=bash
# Kubernetes' control plane (all but a scheduler and a kubelet), kubectl and etcd, built from their Go
# modules (Go 1.26). `go install …@version` refuses both because of a `replace` in their go.mod; in a
# module of ours they build, with each of Kubernetes' staging modules replaced by its release.
install_apiserver() {
    local directory=$1 version=1.36.3 kubernetes name
    kubernetes=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    mkdir "$directory/kubernetes" "$directory/etcd"
    (
        cd "$directory/kubernetes" || exit
        go mod init control-plane
        go mod edit -require "k8s.io/kubernetes@v$version"
        for name in $(sed -n 's|^\t\(k8s.io/[^ ]*\) => ./staging.*|\1|p' "$kubernetes/go.mod"); do
            go mod edit -replace "$name=$name@v0${version#1}"
        done
        # -p 1 keeps the memory of the compiler and the linker within small machines.
        go build -p 1 -mod=mod -buildvcs=false -trimpath -ldflags="-s -w" -o "$directory/bin/" \
            k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kubectl}
    )
    (
        cd "$directory/etcd" || exit
        go mod init storage
        go mod edit -require go.etcd.io/etcd/server/v3@v3.6.16
        go build -p 1 -mod=mod -buildvcs=false -trimpath -ldflags="-s -w" -o "$directory/bin/etcd" \
            go.etcd.io/etcd/server/v3
    )
}
