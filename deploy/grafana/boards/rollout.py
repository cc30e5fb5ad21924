"""Are the engines busy, and with what? Ratchet's view of each replica, and vLLM's own."""

from deploy.grafana.board import BYTES, COUNT, PER_SECOND, RATIO, SECONDS, Board, lines, quantiles

OF = 'run=~"$run", instance=~"$instance"'

BOARD = Board(
    uid="ratchet-rollout",
    title="Ratchet: rollout fleet",
    question="Are the engines busy, and with what?",
    variables={"instance": "label_values(ratchet_rollout_ready, instance)"},
    rows=[
        (
            "Replicas",
            [
                lines(
                    "Ready",
                    "1 while a replica holds proven weights and takes prompts.",
                    COUNT,
                    (f"ratchet_rollout_ready{{{OF}}}", "{{instance}}"),
                ),
                lines(
                    "Versions behind the learner",
                    "0 in step, 1 while the next version is on its way; more and more: left out or hanging.",
                    COUNT,
                    (f"instance:ratchet_rollout_behind_steps{{{OF}}}", "{{instance}}"),
                    steps=((None, "green"), (4, "orange")),
                ),
                lines(
                    "Idle",
                    "Share of the last five minutes without a sequence in the engine.",
                    RATIO,
                    (f'instance:ratchet_idle:ratio_rate5m{{{OF}, room="rollout"}}', "{{instance}}"),
                    steps=((None, "green"), (0.5, "orange")),
                ),
            ],
        ),
        (
            "Work",
            [
                lines(
                    "Sampled tokens",
                    "Response tokens a second of groups that were handed over.",
                    PER_SECOND,
                    (
                        f"sum by (instance) (rate(ratchet_rollout_sampled_tokens_total{{{OF}}}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                ),
                lines(
                    "Sequences in the engine",
                    "Those of claimed prompts. At rollout.max_concurrent_sequences the engine is full.",
                    COUNT,
                    (f"ratchet_rollout_running_sequences{{{OF}}}", "{{instance}}"),
                ),
                lines(
                    "Seconds a group",
                    "From claiming a prompt to handing its group over.",
                    SECONDS,
                    *quantiles(f"ratchet_rollout_group_seconds{{{OF}}}"),
                ),
                lines(
                    "Groups by outcome",
                    "Anything but handed_over needs a look.",
                    PER_SECOND,
                    (f"sum by (outcome) (rate(ratchet_rollout_groups_total{{{OF}}}[$__rate_interval]))", "{{outcome}}"),
                ),
                lines(
                    "Trajectories by finish reason",
                    "length: max_tokens cut the response.",
                    PER_SECOND,
                    (
                        f"sum by (finish_reason) (rate(ratchet_rollout_trajectories_total{{{OF}}}[$__rate_interval]))",
                        "{{finish_reason}}",
                    ),
                ),
                lines(
                    "GPU memory",
                    "In use, by any process, as a share of each GPU. Empty without GPUs.",
                    RATIO,
                    (
                        'max by (gpu) (ratchet_gpu_memory_used_bytes{run=~"$run"} / ratchet_gpu_memory_total_bytes{run=~"$run"})',
                        "{{gpu}}",
                    ),
                ),
            ],
        ),
        (
            "Conversations",
            [
                lines(
                    "Conversations and sequences",
                    "Conversations in progress, and those that the engine works on; the others wait for their environment.",
                    COUNT,
                    (f"sum(ratchet_rollout_open_conversations{{{OF}}})", "open"),
                    (f"sum(ratchet_rollout_running_sequences{{{OF}}})", "in the engine"),
                ),
                lines(
                    "Turns",
                    "Messages of the policy in a conversation. At environment.max_turns conversations are cut.",
                    COUNT,
                    *quantiles(f"ratchet_rollout_turns{{{OF}}}"),
                ),
                lines(
                    "Waiting share",
                    "Share of their time that conversations wait for the environment. High with an idle engine: raise "
                    "environment.open_conversations.",
                    RATIO,
                    (
                        f"sum(rate(ratchet_rollout_environment_seconds_sum{{{OF}}}[$__rate_interval])) / "
                        f"sum(rate(ratchet_rollout_conversation_seconds_sum{{{OF}}}[$__rate_interval]))",
                        "waiting",
                    ),
                ),
                lines(
                    "Seconds of a tool's call",
                    "By tool, as the environment says.",
                    SECONDS,
                    *quantiles(f"ratchet_rollout_tool_seconds{{{OF}}}", "tool"),
                ),
                lines(
                    "Errors by tool",
                    "Calls a second that failed. unreadable: nobody can read the call; unknown: there is no such tool. They fall "
                    "as the policy learns.",
                    PER_SECOND,
                    (f"sum by (tool) (rate(ratchet_rollout_tool_errors_total{{{OF}}}[$__rate_interval]))", "{{tool}}"),
                ),
                lines(
                    "Failures of the environment",
                    "Conversations a second that were begun again or given up, by kind. Healthy: 0.",
                    PER_SECOND,
                    (
                        f"sum by (fault) (rate(ratchet_rollout_environment_faults_total{{{OF}}}[$__rate_interval]))",
                        "{{fault}}",
                    ),
                ),
            ],
        ),
        (
            "vLLM",
            [
                lines(
                    "Requests in the scheduler",
                    "Running and waiting. Waiting requests with a full cache: fewer concurrent sequences, or more cache.",
                    COUNT,
                    (f"sum by (instance) (vllm:num_requests_running{{{OF}}})", "{{instance}} running"),
                    (f"sum by (instance) (vllm:num_requests_waiting{{{OF}}})", "{{instance}} waiting"),
                ),
                lines(
                    "KV cache",
                    "Share in use. Near 1, requests are preempted.",
                    RATIO,
                    (f"max by (instance) (vllm:kv_cache_usage_perc{{{OF}}})", "{{instance}}"),
                    steps=((None, "green"), (0.9, "orange")),
                ),
                lines(
                    "Preemptions",
                    "Requests a second that lost their cache and are computed again. Healthy: 0.",
                    PER_SECOND,
                    (f"sum by (instance) (rate(vllm:num_preemptions_total{{{OF}}}[$__rate_interval]))", "{{instance}}"),
                ),
                lines(
                    "Generated tokens",
                    "Tokens a second, unfinished sequences included.",
                    PER_SECOND,
                    (
                        f"sum by (instance) (rate(vllm:generation_tokens_total{{{OF}}}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                ),
                lines(
                    "Prefix cache",
                    "Tokens of prompts a second: looked up in the cache, and found there.",
                    PER_SECOND,
                    (
                        f"sum by (instance) (rate(vllm:prefix_cache_queries_total{{{OF}}}[$__rate_interval]))",
                        "{{instance}} looked up",
                    ),
                    (
                        f"sum by (instance) (rate(vllm:prefix_cache_hits_total{{{OF}}}[$__rate_interval]))",
                        "{{instance}} found",
                    ),
                ),
                lines(
                    "Time between tokens",
                    "Of one sequence.",
                    SECONDS,
                    *quantiles(f"vllm:inter_token_latency_seconds{{{OF}}}"),
                ),
                lines(
                    "Time to the first token",
                    "Queue and prefill.",
                    SECONDS,
                    *quantiles(f"vllm:time_to_first_token_seconds{{{OF}}}"),
                ),
                lines(
                    "Time in vLLM's queue",
                    "Before the prefill.",
                    SECONDS,
                    *quantiles(f"vllm:request_queue_time_seconds{{{OF}}}"),
                ),
                lines(
                    "Memory of the replica's process",
                    "Resident memory of the main process; vLLM's engine processes are not in it.",
                    BYTES,
                    (f'process_resident_memory_bytes{{{OF}, job="rollout"}}', "{{instance}}"),
                ),
            ],
        ),
    ],
)
