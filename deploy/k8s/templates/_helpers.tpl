{{- define "ratchet.name" -}}
{{- if contains "ratchet" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-ratchet" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ratchet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: ratchet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels that pods of one room are selected by: a dict of root and room. */}}
{{- define "ratchet.selector" -}}
app.kubernetes.io/name: ratchet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .room }}
{{- end }}

{{- define "ratchet.redisSecret" -}}
{{- required "redis.existingSecret: name a Secret with the key `password` (or `url`, with redis.enabled=false); make one with kubectl create secret generic NAME --from-literal=password=..." .Values.redis.existingSecret }}
{{- end }}

{{/* Arguments of every service after its name. */}}
{{- define "ratchet.arguments" -}}
{{- $name := include "ratchet.name" . -}}
- /etc/ratchet/run.toml
- --set
- runs_folder=/ratchet/runs
- --set
- weights.host={{ $name }}-learner-0.{{ $name }}-learner
- --set
- weights.port=29400
- --set
- weights.serve_port=29401
- --set
- verifier.host=0.0.0.0
- --set
- verifier.port=9100
- --set
- rollout.metrics_host=0.0.0.0
- --set
- rollout.metrics_port=9101
- --set
- learner.metrics_host=0.0.0.0
- --set
- learner.metrics_port=9102
{{- range .Values.run.set }}
- --set
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "ratchet.environment" -}}
env:
  {{- if .Values.redis.enabled }}
  - name: REDIS_PASSWORD
    valueFrom: { secretKeyRef: { name: {{ include "ratchet.redisSecret" . }}, key: password } }
  - name: RATCHET_REDIS_URL
    value: redis://:$(REDIS_PASSWORD)@{{ include "ratchet.name" . }}-redis:6379/0
  {{- else }}
  - name: RATCHET_REDIS_URL
    valueFrom: { secretKeyRef: { name: {{ include "ratchet.redisSecret" . }}, key: url } }
  {{- end }}
  - name: HF_HOME
    value: /ratchet/runs/.huggingface
  - name: XDG_CACHE_HOME
    value: /ratchet/runs/.cache
  - name: VLLM_CACHE_ROOT
    value: /ratchet/runs/.cache/vllm
  - name: TRITON_CACHE_DIR
    value: /ratchet/runs/.cache/triton
  {{- range $name, $value := .Values.environment }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- with .Values.environmentFromSecrets }}
envFrom:
  {{- range . }}
  - secretRef: { name: {{ . }} }
  {{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.mounts" -}}
volumeMounts:
  - { name: run, mountPath: /etc/ratchet, readOnly: true }
  - { name: runs, mountPath: /ratchet/runs }
  - { name: tmp, mountPath: /tmp }
  - { name: shm, mountPath: /dev/shm }
{{- end }}

{{/* A dict of root and size of shared memory. */}}
{{- define "ratchet.volumes" -}}
volumes:
  - name: run
    configMap: { name: {{ include "ratchet.name" .root }}-run }
  - name: runs
    persistentVolumeClaim: { claimName: {{ .root.Values.runs.existingClaim | default (printf "%s-runs" (include "ratchet.name" .root)) }} }
  - name: tmp
    emptyDir: {}
  - name: shm
    emptyDir: { medium: Memory, sizeLimit: {{ .memory }} }
{{- end }}

{{- define "ratchet.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
  seccompProfile: { type: {{ .seccomp | default "RuntimeDefault" }} }
{{- end }}

{{- define "ratchet.probes" -}}
startupProbe:
  httpGet: { path: /healthz, port: metrics }
  periodSeconds: 5
  failureThreshold: 360 # half an hour to load a model
livenessProbe:
  httpGet: { path: /healthz, port: metrics }
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* A dict of own (resources of a room) and gpus. */}}
{{- define "ratchet.resources" -}}
{{- $own := deepCopy (.own | default dict) }}
{{- if .gpus }}
{{- $_ := set $own "limits" (merge (dict "nvidia.com/gpu" (toString .gpus)) ($own.limits | default dict)) }}
{{- end }}
resources: {{ toJson $own }}
{{- end }}

{{- define "ratchet.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end }}
