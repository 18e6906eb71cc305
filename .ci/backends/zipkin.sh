# Zipkin's server as one executable jar (Java 17 or later).
install_zipkin() {
    local directory=$1
    if ! type -P mvn java >/dev/null; then
        apt_install maven default-jre-headless
    fi
    mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact=io.zipkin:zipkin-server:3.6.1:jar:exec -Dmdep.stripVersion=true \
        -DoutputDirectory="$directory"
}
