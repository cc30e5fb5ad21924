#!/usr/bin/env bash
# Proves docker-compose.yml on this machine: builds the images, runs the CPU profile for real, scales it, kills a container of each
# kind, stops and starts everything, and goes over the accounts. Ends with 0 only if all of it held.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/prove.sh [options]

  --base IMAGE          build on this image, such as python:3.11-slim-bookworm, and take Redis, Prometheus and Alertmanager from
                        the registry. Without it all of them are made from Debian's packages: as root, with debootstrap
  --mirror URL          where debootstrap takes Debian from (default: debootstrap's own)
  --carry DIR           files to copy over the root of what is built on: certificates, apt's sources, pip's configuration, wheels.
                        Those under DIR/etc/ssl and DIR/usr reach the image that runs, too
  --network NETWORK     Docker's network while images are built (default: bridge); `host` to have this machine's
  --image IMAGE         take this image of Ratchet and build none
  --steps N             learner steps of the run (default: 240); more if it is over before all was tried
  --port PORT           where Prometheus listens on 127.0.0.1 (default: 19090); the live page has the next one
  --grafana             start Grafana, too: its image has to be here or within reach
  --keep                leave containers and volumes where they are at the end
  --transcript FILE     default: prove.txt, here

Needs Docker and docker-compose 1.29 or Compose v2, 10 GB of disk and about ten minutes of two cores.
TEXT
}
die() { printf 'prove: %s\n' "$1" >&2; exit 2; }

base= mirror= carry= network=bridge image= steps=240 port=19090 grafana= keep= transcript=prove.txt
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --grafana | --keep) printf -v "${1#--}" yes && shift ;;
    --base | --mirror | --carry | --network | --image | --steps | --port | --transcript)
        [ $# -ge 2 ] || die "$1 needs a value; see --help"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
    *) die "unknown option $1; see --help" ;;
    esac
done
[ -z "$carry" ] || [ -d "$carry" ] || die "--carry: no folder $carry"
case $steps in '' | *[!0-9]*) die "--steps is a number of steps, not $steps" ;; esac
docker info >/dev/null 2>&1 || die "no Docker answers; start it, or ask to be allowed to use it"
if docker compose version >/dev/null 2>&1; then
    compose_command=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose_command=(docker-compose)
else
    die "neither \`docker compose\` nor docker-compose is here; install one (Debian: apt-get install docker-compose)"
fi
transcript=$(realpath -m "$transcript")
cd "$(dirname "$0")/.."

project=ratchet-prove
work=$(mktemp -d)
chmod 755 "$work"
services=(redis verifier rollout learner page prometheus alertmanager)
[ -z "$grafana" ] || services+=(grafana)
began=$(date +%s)
say() { printf '%4d s  %s\n' $(($(date +%s) - began)) "$*"; }
fail() { say "FAILED: $*"; exit 1; }
compose() { "${compose_command[@]}" -p "$project" -f docker-compose.yml -f "$work/prove.yml" --profile cpu "$@"; }
quietly() { "$@" >"$work/said" 2>&1 || { tail -n 20 "$work/said"; fail "$*"; }; }

# ---- images

# build TAG FROM PACKAGES ENTRYPOINT: Debian's packages over an image.
build() {
    docker build --quiet --network "$network" --tag "$1" - >/dev/null 2>"$work/said" <<TEXT || { cat "$work/said"; fail "the image $1"; }
FROM $2
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt && groupadd --gid 999 --force ratchet-data \
    && { id 999 2>/dev/null || useradd --uid 999 --gid 999 data; } \
    && mkdir -p /data /prometheus /alertmanager && chown 999:999 /data && chown nobody /prometheus /alertmanager
$4
TEXT
}

images() {
    if [ -z "$base" ]; then
        if ! docker image inspect "$project:debian" >/dev/null 2>&1; then
            [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null ||
                die "without --base, root and debootstrap are needed to make a base image (apt-get install debootstrap)"
            say "making a base image with debootstrap"
            quietly debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" ${mirror:+"$mirror"}
            tar -C "$work/root" -c . | docker import - "$project:debian" >/dev/null
            rm -rf "$work/root"
        fi
        say "making images of Redis, Prometheus and Alertmanager from Debian's packages"
        over() { # TAG, then the folders of --carry that go over the root
            local tag=$1 folder && shift
            ! docker image inspect "$tag" >/dev/null 2>&1 || return 0
            docker create --name "$project-over" "$project:debian" true >/dev/null
            [ -z "$carry" ] || for folder in "$@"; do
                [ ! -e "$carry/$folder" ] || tar -C "$carry" --owner=0 --group=0 -c "$folder" | docker cp - "$project-over:/"
            done
            docker commit "$project-over" "$tag" >/dev/null
            docker rm "$project-over" >/dev/null
        }
        over "$project:whole" .
        over "$project:slim" etc/ssl etc/apt usr
        build "$project:build" "$project:whole" "python3 python3-venv" ""
        build "$project:run" "$project:slim" "python3" ""
        build "$project:redis" "$project:slim" redis-server ""
        build "$project:prometheus" "$project:slim" "prometheus wget" 'USER nobody
ENTRYPOINT ["prometheus"]'
        build "$project:alertmanager" "$project:slim" "prometheus-alertmanager wget" 'USER nobody
ENTRYPOINT ["prometheus-alertmanager"]'
        export BASE_IMAGE_CPU=$project:build RUNTIME_IMAGE_CPU=$project:run REDIS_IMAGE=$project:redis \
            PROMETHEUS_IMAGE=$project:prometheus ALERTMANAGER_IMAGE=$project:alertmanager
    else
        export BASE_IMAGE_CPU=$base RUNTIME_IMAGE_CPU=$base
    fi
    if [ -z "$image" ]; then
        image=$project:cpu
        say "building $image"
        quietly docker build --network "$network" --file deploy/Dockerfile.cpu --build-arg "BASE=$BASE_IMAGE_CPU" \
            --build-arg "RUNTIME_BASE=$RUNTIME_IMAGE_CPU" --tag "$image" .
    fi
    say "$image has $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)) MB"
}

# ---- what is asked of the run

containers() { docker ps --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
all_containers() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project"; }
of_each() { docker inspect --format "{{index .Config.Labels \"com.docker.compose.service\"}}-{{index .Config.Labels \"com.docker.compose.container-number\"}} $1" $(all_containers) | sort; }
in_runs() { docker run --rm --interactive --network none --volume "${project}_runs:/ratchet/runs:ro" --entrypoint "$1" "$image" "${@:2}"; }
step() { local line; line=$(docker exec "$(containers learner)" tail -n 1 runs/prove/steps.jsonl 2>/dev/null) || line=; line=${line#*\"step\": }; line=${line%%,*}; echo "${line:-0}"; }
query() { docker exec "$(containers prometheus)" promtool query instant http://127.0.0.1:9090 "$1" 2>/dev/null || true; }
value() { query "$1" | sed -n 's/.*=> *\([^ ]*\) @.*/\1/p' | head -n 1; }
exactly() { [ "$(value "$1")" = "$2" ]; }
stepped() { local now; now=$(step); case $now in *[!0-9]*) return 1 ;; esac; [ "$now" -ge "$1" ]; }
running() { [ "$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$1")" = "running $2" ]; }
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
status_of() { python3 - "$1" <<'PYTHON'
import http.cookiejar, sys, urllib.error, urllib.request as request
opener = request.build_opener(request.ProxyHandler({}), request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
try:
    print(opener.open(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as refused:
    print(refused.code)
PYTHON
}
# Moments, in seconds since the epoch: when a container last started, when its log first had these words, when step 1 ended, and when
# the first step that trained on a group of the replica in this container did. Empty: not yet.
epoch() { [ -z "$1" ] || date -d "$1" +%s.%N; }
started_at() { epoch "$(docker inspect --format '{{.State.StartedAt}}' "$1")"; }
said_at() { epoch "$(docker logs --timestamps "$1" 2>&1 | grep -F "$2" | head -n 1 | cut -d ' ' -f 1)"; }
first_step_at() { docker exec "$(containers learner)" head -n 1 runs/prove/steps.jsonl | sed 's/.*"at_unix_s": *\([0-9.]*\).*/\1/'; }
trained_at() { docker exec --interactive "$(containers learner)" python - "${1:0:12}" <<'PYTHON'
import sys
from pathlib import Path
from services.run.json_lines import read_json_lines
from services.run.kept_groups import kept_steps, read_step
folder = Path("runs/prove")
ended = {row["step"]: row["at_unix_s"] for row in read_json_lines(folder / "steps.jsonl")}
groups = (group for path in kept_steps(folder / "groups") for group in read_step(path))
print(next((ended[group.step] for group in groups
            if group.replica_id.startswith(sys.argv[1]) and group.dropped is None and group.step in ended), ""))
PYTHON
}
after() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.0f", to - from }'; }
has_trained() { [ -n "$(trained_at "$1")" ]; }
has_said() { [ -n "$(said_at "$1" "$2")" ]; }
rewarded() { [ -n "$(value 'ratchet_learner_reward_mean and on (instance) ratchet_learner_policy_version > 0')" ]; } # it is 0 before

# wait_for SECONDS WHAT COMMAND...: polls every second. Ends the proof after SECONDS.
wait_for() {
    local limit=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@" 2>/dev/null; do
        [ "$(date +%s)" -lt "$limit" ] || { compose logs --tail 15 >"$work/said" 2>&1; tail -n 60 "$work/said"; fail "waited too long for: $what"; }
        sleep 1
    done
}

# kill_one SERVICE: what runs in its first container dies as it would of a fault; Docker's restart policy is what brings it back.
killed=()
kill_one() {
    local id at
    id=$(containers "$1" | tail -n 1)
    at=$(step)
    say "killing $1 at step $at"
    docker exec "$id" sh -c 'kill -9 $(cat /proc/1/task/1/children)' 2>/dev/null || true
    killed+=("$id")
    wait_for 60 "$1 to be started again" running "$id" 1
    wait_for 240 "$1 to be healthy again" healthy "$id"
    say "  $1 is healthy again"
    wait_for 240 "three more steps after the death of $1" stepped $(($(step) + 3))
}

scale() {
    say "scaling rollout to $1 at step $(step)"
    quietly compose up -d --no-recreate --scale "rollout=$1" "${services[@]}"
}

# ---- the proof

prove() {
    images
    sed -e 's/^name = .*/name = "prove"/' -e "s/^steps = .*/steps = $steps/" -e 's/every_steps = 40 }/every_steps = 20 }/' \
        -e 's|"\.\./\.\./|"../|' deploy/runs/addition-cpu.toml >"$work/run.toml"
    {
        echo "services:"
        for service in verifier rollout learner page; do
            printf '  %s: { image: "%s", volumes: ["%s:/ratchet/prove:ro"] }\n' "$service" "$image" "$work/run"
        done
    } >"$work/prove.yml"
    mkdir "$work/run" && mv "$work/run.toml" "$work/run/run.toml"
    chmod -R a+rX "$work/run"
    if [ ! -d examples/addition/model ] || [ ! -d examples/addition/data ]; then
        say "making the example's model and data"
        quietly docker run --rm --user "$(id -u):$(id -g)" --env HOME=/tmp --network none --volume "$PWD/examples:/ratchet/examples" --entrypoint python "$image" examples/addition/make_example.py
    fi
    export RATCHET_RUN=prove/run.toml PROMETHEUS_PORT=$port PAGE_PORT=$((port + 1))
    unset REDIS_PASSWORD REDIS_PASSWORD_FILE
    quietly compose down --volumes --remove-orphans

    say "without a password"
    timeout 120 "${compose_command[@]}" -p "$project" -f docker-compose.yml -f "$work/prove.yml" --profile cpu up -d "${services[@]}" >"$work/said" 2>&1 &&
        fail "everything was started without a password"
    compose logs redis >"$work/said" 2>&1
    grep -o -m 1 'no password for Redis.*' "$work/said" || fail "Redis did not say that it has no password"
    for service in verifier rollout learner; do
        [ -z "$(containers "$service")" ] || fail "$service was started without a password"
    done
    quietly compose down --volumes

    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/password"
    chmod 644 "$work/password"
    export REDIS_PASSWORD_FILE=$work/password
    say "docker compose --profile cpu up, 1 replica, $steps steps"
    local up
    up=$(date +%s)
    quietly compose up -d "${services[@]}"
    wait_for 400 "the first point of the reward panel" rewarded
    say "first point of the reward panel: $(($(date +%s) - up)) s after up"
    say "  seconds after up: learner started $(after "$up" "$(started_at "$(containers learner)")"), engine stands" \
        "$(after "$up" "$(said_at "$(containers rollout)" "the engine has started")"), first step $(after "$up" "$(first_step_at)")"
    wait_for 240 "step 10" stepped 10
    local page
    page=$(docker logs "$(containers page)" 2>&1 | sed -n 's/^page //p' | tail -n 1)
    [ "$(status_of "${page%%\?*}")" = 401 ] || fail "the page answers without its token: ${page%%\?*}"
    [ "$(status_of "$page")" = 200 ] || fail "the page does not answer: ${page%%\?*}"
    say "the live page answers at ${page%%\?*}, and only with its token"

    local first asked new engine trained
    first=$(containers rollout)
    asked=$(date +%s)
    scale 2
    new=$(containers rollout | grep -v "$first")
    wait_for 300 "the new replica's first group" has_said "$new" "the first group is sampled"
    wait_for 100 "the step that trains on it" has_trained "$new"
    engine=$(said_at "$new" "the engine has started") trained=$(trained_at "$new")
    say "the new replica: its container started $(after "$asked" "$(started_at "$new")") s after it was asked for, its engine stood" \
        "after $(after "$asked" "$engine") s, and a step had trained on its first group after $(after "$asked" "$trained") s:" \
        "$(after "$engine" "$trained") s after the engine"
    wait_for 100 "the new replica to be healthy" healthy "$new"
    scale 3
    wait_for 300 "three replicas in the weight group" exactly ratchet_learner_replicas 3
    say "three replicas are in the weight group"

    for service in rollout verifier page alertmanager prometheus redis learner; do kill_one "$service"; done

    scale 1
    wait_for 120 "one replica in the weight group" exactly ratchet_learner_replicas 1
    say "one replica is left; $(of_each '' | grep -c rollout) rollout container"
    wait_for 120 "three more steps" stepped $(($(step) + 3))
    say "restarts:" && of_each '{{.RestartCount}}' | sed 's/^/        /'
    local id expected
    for id in $(all_containers); do
        expected=0
        case " ${killed[*]} " in *" $id "*) expected=1 ;; esac
        [ "$(docker inspect --format '{{.RestartCount}}' "$id")" = $expected ] || fail "a container was started again that was not killed"
    done

    say "stopping everything at step $(step)"
    quietly compose stop
    say "stopped: $(of_each '{{.State.ExitCode}}' | tr '\n' ' ')"
    for service in learner rollout verifier; do
        # 130: the learner was stopped before the run was over, and has written a checkpoint.
        ! of_each '{{.State.ExitCode}}' | grep "^$service-" | grep -qvE ' (0|130)$' || fail "$service did not end well when it was stopped"
    done
    say "starting everything again"
    quietly compose start "${services[@]}"
    wait_for 240 "the learner's health" healthy "$(containers learner)"
    local resumed
    resumed=$(step)
    say "healthy; the last step on disk is $resumed"
    wait_for 240 "the next steps" stepped $((resumed + 3))

    say "attaching: up --exit-code-from learner, which ends with the run"
    [ "$(step)" -lt "$steps" ] || fail "the run was over before all was tried; give more --steps"
    compose up --no-recreate --exit-code-from learner "${services[@]}" >"$work/attached" 2>&1 || { tail -n 20 "$work/attached"; fail "the learner did not end with 0"; }
    [ -z "$(docker ps --quiet --filter "label=com.docker.compose.project=$project")" ] || fail "something runs after the end"
    say "the run is over and everything has ended"

    in_runs python - <<'PYTHON' || fail "the accounts are wrong"
import json
from collections import Counter
from pathlib import Path
from services.run.json_lines import read_json_lines
from services.run.settled import read_settled
from services.run.summary import newest
folder = Path("runs/prove")
summary = json.loads((folder / "summary.json").read_text())
steps = newest(read_json_lines(folder / "steps.jsonl"), "step")
groups = summary["groups"]
settled = groups["trained"] + sum(groups["dropped"].values()) + groups["dead"] + groups["outstanding"]
consumed = Counter(group for step in steps for group in step["consumed_groups"])
print(f"        accuracy {summary['accuracy_before']:.3f} -> {summary['accuracy_after']:.3f}, {len(steps)} steps, attempts "
      f"{sorted({step['attempt'] for step in steps})}, lag at most {summary['lag_steps']['max']}")
print(f"        groups: {groups['issued']} issued = {groups['trained']} trained + {groups['dropped']} dropped + {groups['dead']} dead "
      f"+ {groups['outstanding']} outstanding")
assert groups["issued"] == settled, f"{groups['issued']} issued, {settled} accounted for"
assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)), "steps are missing"
twice = [group for group, times in consumed.items() if times > 1]
assert not twice, f"groups consumed twice: {twice[:10]}"
# A stop cuts a step short: what was dropped for it is settled by the checkpoint of the stop, and in no step's row.
between = {f"train-{number}" for number, one in read_settled(folder / "settled.jsonl").groups.items() if one.step is None}
assert not between & set(consumed), f"settled by a stop and consumed by a step: {sorted(between & set(consumed))[:10]}"
assert len(consumed) + len(between) == groups["trained"] + sum(groups["dropped"].values()), (
    f"{len(consumed)} consumed and {len(between)} at a stop, {groups['trained'] + sum(groups['dropped'].values())} trained or dropped")
assert groups["dead"] == 0, "dead letters, though no input was bad"
assert summary["accuracy_after"] > summary["accuracy_before"] + 0.1, "it did not learn"
PYTHON
    unset REDIS_PASSWORD_FILE
    [ -n "$keep" ] || quietly compose down --volumes
    [ -n "$keep" ] || say "down, without a password"
    say "all of it held"
}

clean() {
    [ -n "$keep" ] || [ ! -e "$work/prove.yml" ] || compose down --volumes --remove-orphans >/dev/null 2>&1 || true
    docker rm -f "$project-over" >/dev/null 2>&1 || true
    [ -n "$keep" ] || rm -rf "$work"
}
status=0
(trap clean EXIT && prove) 2>&1 | tee "$transcript" || status=$?
echo "prove: ended with $status; the transcript is $transcript"
exit "$status"
