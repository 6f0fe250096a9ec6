{{- define "evermirror.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every object: the release's, with the chart's unless it is in there already. */}}
{{- define "evermirror.fullname" -}}
{{- $name := include "evermirror.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "evermirror.selectorLabels" -}}
app.kubernetes.io/name: {{ include "evermirror.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evermirror.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "evermirror.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "evermirror.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "evermirror.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "evermirror.claim" -}}
{{- default (include "evermirror.fullname" .) .Values.persistence.existingClaim }}
{{- end }}

{{- define "evermirror.isSidecar" -}}
{{- if eq .Values.mode "sidecar" }}true{{ end }}
{{- end }}

{{/* Whether there is a webhook: config.intake.webhook is a table, be it an empty one. */}}
{{- define "evermirror.webhook" -}}
{{- if kindIs "map" (dig "intake" "webhook" nil .Values.config) }}true{{ end }}
{{- end }}

{{/* Whether there are several pods, each with a volume of its own. */}}
{{- define "evermirror.several" -}}
{{- if gt (int .Values.replicas) 1 }}true{{ end }}
{{- end }}

{{/* Whether one pod works and the others stand by. With Kafka as the journal, all of them work. */}}
{{- define "evermirror.lease" -}}
{{- if and (include "evermirror.several" .) (ne (dig "intake" "kafka" "ack" "durable" .Values.config) "replicated") }}true{{ end }}
{{- end }}

{{/* Whether evermirror takes snapshots. */}}
{{- define "evermirror.snapshots" -}}
{{- if kindIs "map" .Values.config.snapshot }}true{{ end }}
{{- end }}

{{/* Whether evermirror captures the source's settings. */}}
{{- define "evermirror.capture" -}}
{{- if kindIs "map" .Values.config.capture }}true{{ end }}
{{- end }}

{{/* Whether evermirror asks anything of the Kubernetes API. */}}
{{- define "evermirror.kubernetes" -}}
{{- if or (include "evermirror.lease" .) (include "evermirror.snapshots" .) }}true{{ end }}
{{- end }}

{{/* What a schema cannot say. */}}
{{- define "evermirror.check" -}}
{{- if include "evermirror.several" . }}
{{- if include "evermirror.isSidecar" . }}
{{- fail "replicas above 1 are not for mode \"sidecar\": the container is in the store's one pod" }}
{{- end }}
{{- if .Values.persistence.existingClaim }}
{{- fail "persistence.existingClaim is for one replica: each pod needs a volume of its own" }}
{{- end }}
{{- else if .Values.config.lease }}
{{- fail "config.lease is for replicas above 1" }}
{{- end }}
{{- if and .Values.config.lease (include "evermirror.several" .) (not (include "evermirror.lease" .)) }}
{{- fail "config.lease is not for config.intake.kafka.ack \"replicated\", with which all pods work at once" }}
{{- end }}
{{- if and .Values.verify.schedule (include "evermirror.isSidecar" .) }}
{{- fail "verify.schedule is not for mode \"sidecar\": the source's address in the store's pod, config.source.endpoint, is none outside" }}
{{- end }}
{{- if and (include "evermirror.snapshots" .) (include "evermirror.isSidecar" .) (not .Values.serviceAccount.name) }}
{{- fail "config.snapshot needs serviceAccount.name in mode \"sidecar\": the service account of the store's pod, whose token must be mounted" }}
{{- end }}
{{- if and .Values.secrets.capture.name (not (include "evermirror.capture" .)) }}
{{- fail "secrets.capture is for config.capture, which is not there: {} is a table with the defaults" }}
{{- end }}
{{- if and (include "evermirror.webhook" .) (not (include "evermirror.isSidecar" .)) (not .Values.secrets.webhook.name) }}
{{- fail "secrets.webhook.name is required in mode \"deployment\": a Secret with the bearer token that the store sends with its notifications. Make one with: kubectl create secret generic evermirror-webhook --from-literal=token=\"$(openssl rand -hex 32)\"" }}
{{- end }}
{{- end }}

{{/* One value in TOML. Strings in JSON are strings in TOML; numbers in values are floats to Helm. */}}
{{- define "evermirror.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "evermirror.toml.value" $item }}{{ end }}]
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
{{ int64 . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* What a volume claim asks for. */}}
{{- define "evermirror.claimSpec" -}}
accessModes:
  {{- toYaml .Values.persistence.accessModes | nindent 2 }}
{{- with .Values.persistence.storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistence.size }}
{{- end }}

{{/* A table and what is below it: {path, table}. Values come first, because TOML has no way back. */}}
{{- define "evermirror.toml.table" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value) (and (kindIs "slice" $value) (kindIs "map" (first $value)))) }}
{{ $key }} = {{ include "evermirror.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- $below := ternary $key (printf "%s.%s" $path $key) (empty $path) }}
{{- if kindIs "map" $value }}

[{{ $below }}]
{{- include "evermirror.toml.table" (dict "path" $below "table" $value) }}
{{- else if and (kindIs "slice" $value) (kindIs "map" (first $value)) }}
{{- range $value }}

[[{{ $below }}]]
{{- include "evermirror.toml.table" (dict "path" $below "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* evermirror.toml: the values, and what chart and program must agree on. */}}
{{- define "evermirror.toml" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "data_dir" "/var/lib/evermirror" }}
{{- range $store := list "source" "target" }}
{{- with index $.Values.secrets $store }}
{{- if .name }}
{{- $_ := set (index $config $store) "access_key_file" (printf "/run/secrets/evermirror/%s/access-key" $store) }}
{{- $_ := set (index $config $store) "secret_key_file" (printf "/run/secrets/evermirror/%s/secret-key" $store) }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "evermirror.webhook" . }}
{{- $address := ternary "127.0.0.1:8080" "0.0.0.0:8080" (eq .Values.mode "sidecar") }}
{{- $_ := set $config.intake.webhook "listen" $address }}
{{- if .Values.secrets.webhook.name }}
{{- $_ := set $config.intake.webhook "auth_token_file" "/run/secrets/evermirror/webhook/token" }}
{{- end }}
{{- end }}
{{- $web := dict "listen" "0.0.0.0:8081" }}
{{- if .Values.secrets.web.name }}
{{- $_ := set $web "auth_token_file" "/run/secrets/evermirror/web/token" }}
{{- end }}
{{- $_ := set $config "web" (merge $web (default dict $config.web)) }}
{{- if .Values.secrets.capture.name }}
{{- $_ := set $config.capture "passphrase_file" "/run/secrets/evermirror/capture/passphrase" }}
{{- end }}
{{- if include "evermirror.lease" . }}
{{- $lease := dict "name" (include "evermirror.fullname" .) "namespace" .Release.Namespace }}
{{- $_ := set $config "lease" (merge $lease (default dict $config.lease)) }}
{{- end }}
{{- include "evermirror.toml.table" (dict "path" "" "table" $config) | trim }}
{{- end }}

{{/* The container, the same in a pod of its own and in the pod of a store. */}}
{{- define "evermirror.container" -}}
{{ include "evermirror.program" . }}
args: [run, --config, /etc/evermirror/evermirror.toml]
ports:
  {{- if and (include "evermirror.webhook" .) (not (include "evermirror.isSidecar" .)) }}
  - {name: events, containerPort: 8080}
  {{- end }}
  - {name: web, containerPort: 8081}
# A journal of many gigabytes is read before the first answer.
startupProbe:
  httpGet: {path: /healthz, port: 8081}
  periodSeconds: 2
  failureThreshold: 300
livenessProbe:
  httpGet: {path: /healthz, port: 8081}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- /* A mirror that is not ready is no reason to take a store out of service. */}}
{{- if not (include "evermirror.isSidecar" .) }}
{{- /* A standby is as ready as it can be; the label of the active pod is what the Service looks for. */}}
readinessProbe:
  httpGet: {path: {{ ternary "/healthz" "/readyz" (eq (include "evermirror.lease" .) "true") }}, port: 8081}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
{{- end }}

{{/* What every command of evermirror needs of its container. */}}
{{- define "evermirror.program" -}}
name: evermirror
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if or .Values.extraEnv (include "evermirror.lease" .) }}
env:
  {{- if include "evermirror.lease" . }}
  - name: EVERMIRROR__LEASE__POD
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: evermirror-data, mountPath: /var/lib/evermirror}
  - {name: evermirror-config, mountPath: /etc/evermirror, readOnly: true}
  {{- if include "evermirror.secretSources" . }}
  - {name: evermirror-secrets, mountPath: /run/secrets/evermirror, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "evermirror.secretSources" -}}
{{- range $store := list "source" "target" }}
{{- with index $.Values.secrets $store }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
      - {key: {{ .accessKey | quote }}, path: {{ $store }}/access-key}
      - {key: {{ .secretKey | quote }}, path: {{ $store }}/secret-key}
{{- end }}
{{- end }}
{{- end }}
{{- range $use, $file := dict "webhook" "token" "web" "token" "capture" "passphrase" }}
{{- with index $.Values.secrets $use }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
      - {key: {{ .key | quote }}, path: {{ $use }}/{{ $file }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "evermirror.volumes" -}}
{{- if not (include "evermirror.several" .) }}
- name: evermirror-data
  persistentVolumeClaim: {claimName: {{ include "evermirror.claim" . }}}
{{- end }}
{{ include "evermirror.files" . }}
{{- end }}

{{/* The volumes that are only read. */}}
{{- define "evermirror.files" -}}
- name: evermirror-config
  configMap: {name: {{ include "evermirror.fullname" . }}}
{{- with include "evermirror.secretSources" . | trim }}
- name: evermirror-secrets
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the pod of `run` and those of Jobs have in common. */}}
{{- define "evermirror.pod" -}}
{{- if or (not (include "evermirror.isSidecar" .)) .Values.serviceAccount.name }}
serviceAccountName: {{ include "evermirror.serviceAccountName" . }}
{{- end }}
# A Service named evermirror would put EVERMIRROR_… variables of its own into the environment.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  fsGroup: 65532
  # A volume of a large journal is not walked at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A Job of one command: {root, args, claim}. Status 1 and 2 are for a person; a node that goes is not counted. */}}
{{- define "evermirror.job" -}}
backoffLimit: 6
podFailurePolicy:
  rules:
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
    - {action: FailJob, onExitCodes: {containerName: evermirror, operator: In, values: [1, 2]}}
template:
  metadata:
    # Not the labels of `run`, whose Service would send notifications here.
    labels:
      app.kubernetes.io/name: {{ include "evermirror.name" .root }}-job
      app.kubernetes.io/instance: {{ .root.Release.Name }}
  spec:
    restartPolicy: Never
    automountServiceAccountToken: false
    {{- include "evermirror.pod" .root | trim | nindent 4 }}
    containers:
      - {{ include "evermirror.program" .root | indent 8 | trim }}
        args: {{ concat .args (list "--config" "/etc/evermirror/evermirror.toml") | toJson }}
    volumes:
      - name: evermirror-data
        {{- if .claim }}
        {{- $first := printf "evermirror-data-%s-0" (include "evermirror.fullname" .root) }}
        persistentVolumeClaim: {claimName: {{ ternary $first (include "evermirror.claim" .root) (eq (include "evermirror.several" .root) "true") }}}
        {{- else }}
        emptyDir: {}
        {{- end }}
      {{- include "evermirror.files" .root | nindent 6 }}
{{- end }}

{{- define "evermirror.checksum" -}}
{{ include "evermirror.toml" . | sha256sum }}
{{- end }}

{{/*
The patch of a store's workload. A container that starts before the store and ends after it (an init
container with restartPolicy Always) misses none of the store's notifications.
*/}}
{{- define "evermirror.patch" -}}
spec:
  template:
    metadata:
      annotations:
        checksum/evermirror-config: {{ include "evermirror.checksum" . }}
    spec:
      initContainers:
        - {{ include "evermirror.container" . | indent 10 | trim }}
          restartPolicy: Always
      volumes:
        {{- include "evermirror.volumes" . | nindent 8 }}
{{- end }}
