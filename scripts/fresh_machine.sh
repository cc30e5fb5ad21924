#!/usr/bin/env bash
# Proves the README's two commands on a machine that has nothing: a container of bare Debian, a clone of the last commit,
# no compiler and no cache. Needs Docker; writes all that is said there to a file, and ends as the commands did.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/fresh_machine.sh [options]

  --suite bookworm|trixie    Debian 12 or 13 (default: bookworm)
  --user root|ordinary       who types the commands (default: ordinary)
  --command demo|test|both   which of `make demo` and `make test` (default: demo)
  --image IMAGE              take this image, such as debian:12 from a registry. Without it, Debian comes from its own
                             packages: as root, with debootstrap, once; then from the image that this made
  --mirror URL               where debootstrap takes Debian from (default: debootstrap's own)
  --carry DIR                files to copy over the container's root before anything is done there: certificates, apt's
                             sources, pip's configuration, wheels
  --env NAME=VALUE           a variable that the commands see; may be given more than once
  --network NETWORK          Docker's network (default: bridge); `host` to have this machine's
  --offline                  no network once the commands are typed
  --room MIB                 no more room than this for the clone and all that the commands put there
  --interrupt SECONDS        kill the first call of `make` after so long, as a lost machine would, and make it again
  --transcript FILE          default: fresh-SUITE-USER-COMMAND.txt, here

The container has python3, python3-venv, git, make and ca-certificates, as README.md asks, and the rights that a machine
has and a container has not: those to make the namespaces of the sandbox.
TEXT
}
die() { printf 'fresh_machine: %s\n' "$1" >&2; exit 2; }

suite=bookworm user=ordinary command=demo image= mirror= carry= network=bridge typed_network= room= interrupt= transcript=
environment=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --offline) typed_network=none && shift ;;
    --suite | --user | --command | --image | --mirror | --carry | --network | --room | --interrupt | --transcript | --env)
        [ $# -ge 2 ] || die "$1 needs a value; see --help"
        if [ "$1" = --env ]; then environment+=(--env "$2"); else printf -v "${1#--}" %s "$2"; fi
        shift 2
        ;;
    *) die "unknown option $1; see --help" ;;
    esac
done
case $suite in bookworm | trixie) ;; *) die "--suite is bookworm or trixie, not $suite" ;; esac
case $user in root) name=root home=/root ;; ordinary) name=newcomer home=/home/newcomer ;; *) die "--user is root or ordinary, not $user" ;; esac
case $command in demo | test) targets=$command ;; both) targets="demo test" ;; *) die "--command is demo, test or both, not $command" ;; esac
[ -z "$carry" ] || [ -d "$carry" ] || die "--carry: no folder $carry"
docker info >/dev/null 2>&1 || die "no Docker answers; start it, or ask to be allowed to use it"
transcript=$(realpath -m "${transcript:-fresh-$suite-$user-$command.txt}")
cd "$(dirname "$0")/.."

work=$(mktemp -d)
machine=ratchet-fresh-$$
trap 'docker rm -f "$machine" >/dev/null 2>&1; docker image rm -f "$machine" >/dev/null 2>&1; rm -rf "$work"' EXIT

if [ -z "$image" ]; then
    image=ratchet-bare:$suite
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null ||
            die "without --image, root and debootstrap are needed to make one (apt-get install debootstrap)"
        echo "fresh_machine: making $image with debootstrap"
        debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
            die "debootstrap failed: $(tail -n 3 "$work/debootstrap.log")"
        tar -C "$work/root" -c . | docker import - "$image" >/dev/null
        rm -rf "$work/root"
    fi
fi

# What README.md asks for, and a user. apt's lists go, as they are not in Debian's own images.
docker create --name "$machine" --network "$network" "$image" sh -ec '
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -q -y --no-install-recommends python3 python3-venv git make ca-certificates
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
    id newcomer 2>/dev/null || useradd --create-home newcomer' >/dev/null
[ -z "$carry" ] || tar -C "$carry" --owner=0 --group=0 -c . | docker cp - "$machine:/"
docker start --attach "$machine" >"$work/prepared.log" 2>&1 || die "the container was not prepared: $(tail -n 5 "$work/prepared.log")"
git bundle create --quiet "$work/ratchet.bundle" HEAD
docker cp "$work/ratchet.bundle" "$machine:/ratchet.bundle"
docker commit "$machine" "$machine" >/dev/null
docker rm "$machine" >/dev/null

cat >"$work/type.sh" <<'TYPED'
set -eu
. /etc/os-release
echo "fresh_machine: $PRETTY_NAME, $(python3 --version), as $(id -un), $(nproc) cores"
for tool in cc gcc g++ c++ clang; do
    ! command -v $tool || { echo "fresh_machine: there is a compiler"; exit 2; }
done
! test -e ~/.cache || { echo "fresh_machine: there is a cache"; exit 2; }
cd ~/clone
git -c advice.detachedHead=false clone --quiet /ratchet.bundle . && echo "fresh_machine: cloned $(git rev-parse --short HEAD)"
for target in $TARGETS; do
    if [ -n "$INTERRUPT" ]; then
        echo "\$ make $target      (killed after $INTERRUPT s)"
        timeout -s KILL "$INTERRUPT" make $target || true
        INTERRUPT=
    fi
    echo "\$ make $target"
    began=$(date +%s)
    make $target
    echo "fresh_machine: make $target took $(($(date +%s) - began)) s"
done
echo "fresh_machine: .venv has $(du -sm .venv | cut -f1) MiB, ~/.cache $(du -sm ~/.cache 2>/dev/null | cut -f1) MiB"
.venv/bin/ratchet doctor || true
TYPED

space=()
[ -z "$room" ] || space=(--tmpfs "$home/clone:size=${room}m,mode=1777,exec")
status=0
{
    docker run --rm --interactive --init --name "$machine" --network "${typed_network:-$network}" --shm-size 1g \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined "${space[@]}" \
        --user "$name" --env HOME="$home" --env TARGETS="$targets" --env INTERRUPT="$interrupt" "${environment[@]}" \
        "$machine" sh -c 'mkdir -p ~/clone && cat >/tmp/type.sh && exec sh /tmp/type.sh' <"$work/type.sh" 2>&1 || status=$?
    echo "fresh_machine: ended with $status"
    exit "$status"
} | tee "$transcript" || status=$?
echo "fresh_machine: the transcript is $transcript"
exit "$status"
