# Jaeger's all-in-one, built from its Go module at the version in jaeger/go.mod (Go 1.24.6 or later).
# `go install …@version` refuses Jaeger because of a `replace` in its go.mod; as a tool of a module
# of ours it builds. The web interface is not in the Go module: a placeholder page is built in.
install_jaeger() {
    local directory=$1 module
    module=$(dirname "${BASH_SOURCE[0]}")/jaeger
    # -p 2 keeps the memory of parallel compilers and linkers within small machines.
    go build -C "$module" -p 2 -mod=readonly -buildvcs=false -trimpath -ldflags="-s -w" \
        -o "$directory/all-in-one" github.com/jaegertracing/jaeger/cmd/all-in-one
}
