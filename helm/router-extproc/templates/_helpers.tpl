{{- define "router-extproc.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for the longest suffix, so that no object's name is cut in another place than its siblings'. */}}
{{- define "router-extproc.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else if contains (include "router-extproc.name" .) .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "router-extproc.name" .) | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Call: list root component. Never the chart's or the app's version: selectors cannot be changed. */}}
{{- define "router-extproc.selectorLabels" -}}
{{- $root := index . 0 -}}
{{- dict "app.kubernetes.io/name" (include "router-extproc.name" $root) "app.kubernetes.io/instance" $root.Release.Name "app.kubernetes.io/component" (index . 1) | toYaml -}}
{{- end -}}

{{/*
Each label once, whoever gives it: what selectors look for is ours, then an object's extra ones win over commonLabels, and
these over the rest of ours. Call: list root component [extra labels]
*/}}
{{- define "router-extproc.labels" -}}
{{- $root := index . 0 -}}
{{- $selected := include "router-extproc.selectorLabels" (list $root (index . 1)) | fromYaml -}}
{{- $extra := dict -}}
{{- if gt (len .) 2 }}{{ $extra = index . 2 | default dict }}{{ end -}}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $ours := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service "app.kubernetes.io/part-of" "router-extproc" "helm.sh/chart" $chart -}}
{{- merge (dict) $selected $extra ($root.Values.commonLabels | default dict) $ours | toYaml -}}
{{- end -}}

{{/* metadata of an object. Call: list root component suffix [extra annotations] [extra labels] [name instead of ours] */}}
{{- define "router-extproc.metadata" -}}
{{- $root := index . 0 -}}
{{- $annotations := merge (dict) $root.Values.commonAnnotations -}}
{{- if gt (len .) 3 }}{{ $annotations = merge (dict) (index . 3 | default dict) $annotations }}{{ end -}}
{{- $labels := dict -}}
{{- if gt (len .) 4 }}{{ $labels = index . 4 }}{{ end -}}
{{- $name := printf "%s%s" (include "router-extproc.fullname" $root) (index . 2) -}}
{{- if gt (len .) 5 }}{{ $name = index . 5 }}{{ end -}}
name: {{ $name }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "router-extproc.labels" (list $root (index . 1) $labels) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "router-extproc.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $image.repository }}{{ end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "router-extproc.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "router-extproc.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "router-extproc.routesConfigMap" -}}
{{- .Values.existingRoutesConfigMap | default (printf "%s-routes" (include "router-extproc.fullname" .)) -}}
{{- end -}}

{{- define "router-extproc.kubeVersion" -}}
{{- .Values.kubeVersion | default .Capabilities.KubeVersion.Version -}}
{{- end -}}

{{/* "true" or "": whether kinds of an optional API are rendered. Call: list root auto|true|false group/version */}}
{{- define "router-extproc.optional" -}}
{{- $root := index . 0 -}}
{{- $wanted := index . 1 | toString -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") ($root.Capabilities.APIVersions.Has (index . 2))) -}}true{{- end -}}
{{- end -}}

{{- define "router-extproc.udsPath" -}}
/var/run/router-extproc/router.sock
{{- end -}}

{{/* What the sidecar's certificate is for, and gateways verify. */}}
{{- define "router-extproc.tlsName" -}}
{{ include "router-extproc.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "router-extproc.serverSecret" -}}
{{- .Values.tls.serverSecret | default (printf "%s-tls" (include "router-extproc.fullname" .)) -}}
{{- end -}}

{{/* What tells `router-extproc envoy` of TLS to the sidecar, with paths as the Envoy sees them. As JSON. */}}
{{- define "router-extproc.tlsFlags" -}}
{{- $flags := list -}}
{{- if .Values.tls.enabled -}}
{{- $flags = list "--sidecar-ca /etc/router-tls/ca.crt" (printf "--sidecar-name %s" (include "router-extproc.tlsName" .)) -}}
{{- if .Values.tls.requireClientCertificate -}}
{{- $flags = concat $flags (list "--sidecar-cert /etc/router-tls/tls.crt" "--sidecar-key /etc/router-tls/tls.key") -}}
{{- end -}}
{{- end -}}
{{- toJson $flags -}}
{{- end -}}

{{/* Where a gateway finds the authority, and its own certificate if it needs one. */}}
{{- define "router-extproc.clientSecret" -}}
{{- .Values.tls.clientSecret | default (printf "%s-client-tls" (include "router-extproc.fullname" .)) -}}
{{- end -}}

{{/* A client's volume. Without client certificates the server's key stays out of it. Call: root */}}
{{- define "router-extproc.clientTlsVolume" -}}
- name: router-client-tls
  secret:
    secretName: {{ include "router-extproc.clientSecret" . }}
    items:
      {{- range .Values.tls.requireClientCertificate | ternary (list "ca.crt" "tls.crt" "tls.key") (list "ca.crt") }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end -}}

{{- define "router-extproc.deadlineMs" -}}
{{- ((include "router-extproc.router" . | fromYaml).limits | default dict).deadline_ms | default 250 | int64 -}}
{{- end -}}

{{/* How long a gateway waits for the sidecar, in ms. Default: 2 s above its deadline, as in `router-extproc envoy`. */}}
{{- define "router-extproc.messageTimeoutMs" -}}
{{- with .Values.attach.messageTimeout -}}
{{- mulf (trimSuffix "s" .) 1000 | int64 -}}
{{- else -}}
{{- include "router-extproc.deadlineMs" . | add 2000 -}}
{{- end -}}
{{- end -}}

{{/* The settings of `router` that gateways of others are given, with the defaults of router_extproc/config/limits.py. As YAML. */}}
{{- define "router-extproc.exchange" -}}
{{- $router := include "router-extproc.router" . | fromYaml -}}
{{- $limits := $router.limits | default dict -}}
{{- $retry := $router.retry | default dict -}}
maxBodyBytes: {{ .Values.attach.maxBodyBytes | default $limits.max_body_bytes | default 33554432 | int64 }}
retries: {{ sub ($limits.max_attempts | default 3) 1 }}
statuses: {{ hasKey $retry "statuses" | ternary $retry.statuses (list 429) | toJson }}
totalMs: {{ mulf ($retry.total_seconds | default 600) 1000 | int64 }}
# Only where it is asked for: an answer that does not stream has its first byte when it is whole.
perTryMs: {{ mulf ($retry.answer_seconds | default $retry.first_byte_seconds | default 0) 1000 | int64 }}
{{- end -}}

{{/* Retries of a gateway of another: its own value, or what `router` says. Call: list value exchange */}}
{{- define "router-extproc.retries" -}}
{{- kindIs "invalid" (index . 0) | ternary (index . 1).retries (index . 0) | int -}}
{{- end -}}

{{/* Milliseconds as a duration of protobuf. */}}
{{- define "router-extproc.seconds" -}}
{{- printf "%d.%03ds" (div . 1000) (mod . 1000) -}}
{{- end -}}

{{/* Milliseconds as a duration of the Gateway API: whole numbers only. */}}
{{- define "router-extproc.duration" -}}
{{- with div . 1000 }}{{ . }}s{{ end }}{{ with mod . 1000 }}{{ . }}ms{{ end -}}
{{- end -}}

{{- define "router-extproc.graceSeconds" -}}
{{- $drain := .Values.drain -}}
{{- $sum := add $drain.preStopSeconds (ceil $drain.noticeSeconds) (ceil $drain.graceSeconds) 5 -}}
{{- .Values.terminationGracePeriodSeconds | default $sum | int -}}
{{- end -}}

{{/*
The lifecycle of a container that waits before it is told to stop, without a shell where Kubernetes can (1.30 has it on by
default). Empty for 0 s, which Kubernetes refuses before 1.33. Call: dict root seconds
*/}}
{{- define "router-extproc.preStop" -}}
{{- if .seconds -}}
lifecycle:
  preStop:
    {{- include "router-extproc.sleep" . | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "router-extproc.sleep" -}}
{{- if semverCompare ">=1.30-0" (include "router-extproc.kubeVersion" .root) -}}
sleep:
  seconds: {{ .seconds }}
{{- else -}}
exec:
  command: [sleep, {{ .seconds | quote }}]
{{- end -}}
{{- end -}}

{{/* The proxies that Envoy Gateway and Istio make have a port `metrics` of their own. */}}
{{- define "router-extproc.metricsPort" -}}
{{- eq .Values.mode "sidecar" | ternary "router-metrics" "metrics" -}}
{{- end -}}

{{/* The sidecar process as a container. Call: dict root uds(bool) native(bool) */}}
{{- define "router-extproc.container" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
name: router
image: {{ include "router-extproc.image" $root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ $values.recordPrompts | ternary "[serve, --record-prompts]" "[serve]" }}
{{- if .native }}
# A native sidecar: starts before the gateway's Envoy and stops after it.
restartPolicy: Always
{{- end }}
envFrom:
  - configMapRef:
      name: {{ include "router-extproc.fullname" $root }}-static
  {{- with $values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if not .uds }}
  - name: grpc
    containerPort: {{ $values.grpc.port }}
  {{- end }}
  - name: {{ include "router-extproc.metricsPort" $root }}
    containerPort: {{ $values.admin.port }}
{{- range $probe, $health := dict "startup" "readiness" "liveness" "liveness" "readiness" "readiness" }}
{{ $probe }}Probe:
  {{- if or $.uds $values.tls.enabled }}
  # The kubelet's gRPC probes know neither Unix sockets nor TLS.
  httpGet:
    path: {{ eq $health "liveness" | ternary "/livez" "/readyz" }}
    port: {{ include "router-extproc.metricsPort" $root }}
  {{- else }}
  grpc:
    port: {{ $values.grpc.port }}
    service: {{ $health }}
  {{- end }}
  {{- toYaml (get $values.probes $probe) | nindent 2 }}
{{- end }}
{{- with include "router-extproc.preStop" (dict "root" $root "seconds" $values.drain.preStopSeconds) }}
{{ . }}
{{- end }}
{{- $resources := deepCopy $values.resources }}
{{- if $values.gpu.enabled }}
{{- $limits := get $resources "limits" | default dict }}
{{- $_ := set $limits $values.gpu.resourceName $values.gpu.count }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
resources:
  {{- toYaml $resources | nindent 2 }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "router-extproc.volumeMounts" $root | nindent 2 }}
  - name: router-state
    mountPath: /var/lib/router-extproc
  {{- if $values.admin.tokenSecret.name }}
  - name: router-admin-token
    mountPath: /etc/router-admin
    readOnly: true
  {{- end }}
  {{- if $values.redis.passwordSecret.name }}
  - name: router-redis-password
    mountPath: /etc/router-redis
    readOnly: true
  {{- end }}
  {{- if $values.redis.caSecret.name }}
  - name: router-redis-ca
    mountPath: /etc/router-redis-ca
    readOnly: true
  {{- end }}
  {{- if $values.sessionSecret.name }}
  - name: router-session
    mountPath: /etc/router-session
    readOnly: true
  {{- end }}
  {{- if $values.tls.enabled }}
  - name: router-tls
    mountPath: /etc/router-tls
    readOnly: true
  {{- end }}
  {{- if .uds }}
  - name: router-socket
    mountPath: {{ dir (include "router-extproc.udsPath" $root) }}
  {{- end }}
{{- end -}}

{{- define "router-extproc.volumeMounts" -}}
# The directory, never a subPath: a subPath mount is not updated when the ConfigMap changes.
- name: router-routes
  mountPath: /etc/router-extproc
  readOnly: true
- name: router-tmp
  mountPath: /tmp
{{- if ne .Values.models.source "image" }}
- name: router-model
  mountPath: /models
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes of the sidecar container. Names begin with router-, for they also go into the pods of gateways. */}}
{{- define "router-extproc.volumes" -}}
- name: router-routes
  configMap:
    name: {{ include "router-extproc.routesConfigMap" . }}
- name: router-tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSizeLimit }}
- name: router-state
  {{- if .Values.state.volume }}
  {{- toYaml .Values.state.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.state.sizeLimit }}
  {{- end }}
{{- if .Values.admin.tokenSecret.name }}
- name: router-admin-token
  secret:
    secretName: {{ .Values.admin.tokenSecret.name }}
{{- end }}
{{- if .Values.redis.passwordSecret.name }}
- name: router-redis-password
  secret:
    secretName: {{ .Values.redis.passwordSecret.name }}
{{- end }}
{{- if .Values.redis.caSecret.name }}
- name: router-redis-ca
  secret:
    secretName: {{ .Values.redis.caSecret.name }}
{{- end }}
{{- if .Values.sessionSecret.name }}
- name: router-session
  secret:
    secretName: {{ .Values.sessionSecret.name }}
{{- end }}
{{- if .Values.tls.enabled }}
- name: router-tls
  secret:
    secretName: {{ include "router-extproc.serverSecret" . }}
{{- end }}
{{- include "router-extproc.modelVolume" (list . "-scripts") }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* router.yaml: `router`, with the store of `redis` in it. Text goes in as it stands, since Helm would sort the keys of a map. */}}
{{- define "router-extproc.routerYaml" -}}
{{- $redis := .Values.redis -}}
{{- $store := dict -}}
{{- if $redis.url -}}
{{- $_ := set $store "url" $redis.url -}}
{{- with $redis.username -}}{{- $_ := set $store "username" . -}}{{- end -}}
{{- if $redis.passwordSecret.name -}}
{{- $_ := set $store "password_file" (printf "/etc/router-redis/%s" $redis.passwordSecret.key) -}}
{{- end -}}
{{- if $redis.caSecret.name -}}
{{- $_ := set $store "ca_file" (printf "/etc/router-redis-ca/%s" $redis.caSecret.key) -}}
{{- end -}}
{{- end -}}
{{- if kindIs "string" .Values.router -}}
{{- trimSuffix "\n" .Values.router -}}
{{- with $store }}
{{ toYaml (dict "store" .) }}
{{- end -}}
{{- else -}}
{{- $router := deepCopy .Values.router -}}
{{- if $store -}}
{{- $_ := set $router "store" (mergeOverwrite (deepCopy ($router.store | default dict)) $store) -}}
{{- end -}}
{{- toYaml $router -}}
{{- end -}}
{{- end -}}

{{/* The keys of the ConfigMap with the routes. Call: root */}}
{{- define "router-extproc.routes" -}}
router.yaml: |2
  {{- include "router-extproc.routerYaml" . | nindent 2 }}
{{- with .Values.routerFiles }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the chart itself reads of `router`: the map, also where router.yaml was given as text. As YAML. */}}
{{- define "router-extproc.router" -}}
{{- $router := .Values.router | default dict -}}
{{- if kindIs "string" $router -}}
{{- $router = fromYaml $router -}}
{{- with $router.Error -}}{{- fail (printf "router: the text is not YAML: %s" .) -}}{{- end -}}
{{- if not (and $router.models (kindIs "map" $router.models) $router.default) -}}
{{- fail "router: the text needs `models` and `default`" -}}
{{- end -}}
{{- end -}}
{{- toYaml $router -}}
{{- end -}}

{{/* Call: list root suffix, of the ConfigMap with the script that fetches the weights */}}
{{- define "router-extproc.modelVolume" -}}
{{- $root := index . 0 }}
{{- $models := $root.Values.models }}
{{- if eq $models.source "pvc" }}
- name: router-model
  persistentVolumeClaim:
    claimName: {{ include "router-extproc.claimName" $root }}
    readOnly: true
{{- else if eq $models.source "initContainer" }}
- name: router-model
  emptyDir:
    sizeLimit: {{ $models.initContainer.sizeLimit }}
- name: router-scripts
  configMap:
    name: {{ include "router-extproc.fullname" $root }}{{ index . 1 }}
{{- else if eq $models.source "ociVolume" }}
- name: router-model
  image:
    reference: {{ $models.ociVolume.reference | quote }}
    pullPolicy: {{ $models.ociVolume.pullPolicy }}
{{- else if eq $models.source "hostPath" }}
- name: router-model
  hostPath:
    path: {{ $models.hostPath.path | quote }}
    type: Directory
{{- end }}
{{- end -}}

{{- define "router-extproc.claimName" -}}
{{- .Values.models.pvc.existingClaim | default (printf "%s-model" (include "router-extproc.fullname" .)) -}}
{{- end -}}

{{- define "router-extproc.modelInitContainers" -}}
{{- if eq .Values.models.source "initContainer" }}
- name: fetch-model
  image: {{ include "router-extproc.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [python, /scripts/fetch_model.py]
  args:
    - {{ .Values.models.initContainer.url | quote }}
    - {{ .Values.models.initContainer.sha256 | quote }}
    - /models
  resources:
    {{- toYaml .Values.models.initContainer.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    - name: router-model
      mountPath: /models
    - name: router-scripts
      mountPath: /scripts
      readOnly: true
    - name: router-tmp
      mountPath: /tmp
{{- end }}
{{- end -}}

{{- define "router-extproc.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Of a pod with a GPU, next to what its container asks for. */}}
{{- define "router-extproc.runtimeClass" -}}
{{- if .Values.gpu.enabled }}
{{- with .Values.gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* As JSON: a list, empty where nothing is to be tolerated. */}}
{{- define "router-extproc.gpuTolerations" -}}
{{- $gpu := .Values.gpu -}}
{{- $toleration := dict "key" $gpu.resourceName "operator" "Exists" "effect" "NoSchedule" -}}
{{- and $gpu.enabled $gpu.tolerate | ternary (list $toleration) list | toJson -}}
{{- end -}}

{{/* What all our pods share. Call: list root */}}
{{- define "router-extproc.podBasics" -}}
automountServiceAccountToken: false
{{- include "router-extproc.pullSecrets" . }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* On which nodes: of all our pods. Call: list root component */}}
{{- define "router-extproc.nodes" -}}
{{- $values := (index . 0).Values }}
{{- $component := index . 1 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := $values.tolerations }}
{{- /* The Job and the tests too: where nodes with a GPU are selected, there is no other node for them. */}}
{{- if or (ne $component "envoy") (eq $values.mode "sidecar") }}
{{- $tolerations = concat $tolerations (include "router-extproc.gpuTolerations" (index . 0) | fromJsonArray) }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := $values.affinity }}
{{- if has $component (list "check" "test") }}
{{- /* Nothing about other pods: the Job runs before there are any. */}}
{{- $affinity = pick $affinity "nodeAffinity" }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Nodes, and how the pods of a Deployment spread over them. Call: list root component */}}
{{- define "router-extproc.placement" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $values := $root.Values }}
{{- include "router-extproc.nodes" . }}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else if $values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "router-extproc.selectorLabels" (list $root $component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What no schema can say: values that only make sense together. Rendered by every install, before anything else. */}}
{{- define "router-extproc.validate" -}}
{{- $v := .Values -}}
{{- if and (not $v.router) (not $v.existingRoutesConfigMap) -}}
{{- fail "router is empty: put your router.yaml there (models, routes, default), for instance `helm install ... -f routes.yaml` with a file that starts with `router:`; or name a ConfigMap in existingRoutesConfigMap" -}}
{{- end -}}
{{- if and $v.router $v.existingRoutesConfigMap -}}
{{- fail "router and existingRoutesConfigMap are both set: the ConfigMap would win and router would do nothing" -}}
{{- end -}}
{{- if and $v.routerFiles $v.existingRoutesConfigMap -}}
{{- fail "routerFiles stand beside `router`: with existingRoutesConfigMap, put them into that ConfigMap" -}}
{{- end -}}
{{- if and $v.redis.url $v.existingRoutesConfigMap -}}
{{- fail "redis.url goes into `router`: with existingRoutesConfigMap, write the `store` section there and mount its Secret with extraVolumes" -}}
{{- end -}}
{{- $router := include "router-extproc.router" . | fromYaml -}}
{{- if and $v.redis.url ($router.store | default dict).url -}}
{{- fail "redis.url and router.store.url are both set: give one" -}}
{{- end -}}
{{- if and $v.redis.url (kindIs "string" $v.router) (hasKey $router "store") -}}
{{- fail "redis.url writes the `store` section, and router is a text that has one: leave it out there, or leave redis.url out" -}}
{{- end -}}
{{- if and $v.redis.caSecret.name (not (hasPrefix "rediss://" $v.redis.url)) -}}
{{- fail "redis.caSecret needs a rediss:// url" -}}
{{- end -}}
{{- if and (not $v.redis.url) (or $v.redis.passwordSecret.name $v.redis.username) -}}
{{- fail "redis.passwordSecret and redis.username do nothing without redis.url" -}}
{{- end -}}
{{- range $name := $router.default | default list | kindIs "string" | ternary (list $router.default) ($router.default | default list) -}}
{{- if not (hasKey ($router.models | default dict) $name) -}}
{{- fail (printf "router.default names the model %q, which is not in router.models" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.existingRoutesConfigMap (has $v.attach.provider (list "istio" "envoy-gateway")) -}}
{{- fail (printf "attach.provider %s renders objects for every model: it needs the models in `router`, not in existingRoutesConfigMap" $v.attach.provider) -}}
{{- end -}}
{{- if and (eq $v.mode "sidecar") $v.networkPolicy.enabled -}}
{{- fail "networkPolicy selects the pods of mode deployment; in mode sidecar a policy for the gateway's pods is yours to write" -}}
{{- end -}}
{{- if and (eq $v.mode "sidecar") (ne $v.autoscaling.type "none") -}}
{{- fail "autoscaling scales the pods of mode deployment; in mode sidecar the gateway scales" -}}
{{- end -}}
{{- if and (hasKey $v.state.volume "persistentVolumeClaim") (or (ne $v.mode "deployment") (gt (int $v.replicaCount) 1) (ne $v.autoscaling.type "none")) -}}
{{- fail "state.volume: a ledger has one writer; a claim needs mode deployment, replicaCount 1 and no autoscaling" -}}
{{- end -}}
{{- if $v.tls.enabled -}}
{{- if ne $v.mode "deployment" -}}
{{- fail "tls: mode sidecar talks over a Unix socket, which needs none" -}}
{{- end -}}
{{- if not (or $v.tls.certManager.issuerRef.name (and $v.tls.serverSecret $v.tls.clientSecret)) -}}
{{- fail "tls.enabled: set tls.serverSecret and tls.clientSecret, or tls.certManager.issuerRef.name" -}}
{{- end -}}
{{- end -}}
{{- if and $v.terminationGracePeriodSeconds (le (int $v.terminationGracePeriodSeconds) (int $v.drain.preStopSeconds)) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is not above drain.preStopSeconds (%d): Kubernetes would end the pod before it is told to stop. Leave it out for the three drain times and 5 s" (int $v.terminationGracePeriodSeconds) (int $v.drain.preStopSeconds)) -}}
{{- end -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- $models := $v.models -}}
{{- if eq $models.source "pvc" -}}
{{- if not (or $models.pvc.existingClaim $models.pvc.create) -}}
{{- fail "models.source pvc: set models.pvc.existingClaim, or models.pvc.create" -}}
{{- end -}}
{{- else if eq $models.source "initContainer" -}}
{{- if not (and $models.initContainer.url $models.initContainer.sha256) -}}
{{- fail "models.source initContainer: set models.initContainer.url and .sha256" -}}
{{- end -}}
{{- else if eq $models.source "ociVolume" -}}
{{- if not $models.ociVolume.reference -}}{{- fail "models.source ociVolume: set models.ociVolume.reference" -}}{{- end -}}
{{- if not (or (contains "@sha256:" $models.ociVolume.reference) $models.digest) -}}
{{- fail "models.source ociVolume: a tag may be moved: name the image by digest (@sha256:...), or set models.digest" -}}
{{- end -}}
{{- if semverCompare "<1.31-0" (include "router-extproc.kubeVersion" .) -}}
{{- fail "models.source ociVolume: image volumes need Kubernetes 1.31 (and the ImageVolume feature gate before 1.35)" -}}
{{- end -}}
{{- else if eq $models.source "hostPath" -}}
{{- if not $models.hostPath.path -}}{{- fail "models.source hostPath: set models.hostPath.path" -}}{{- end -}}
{{- end -}}
{{- if eq $v.attach.provider "istio" -}}
{{- if and $v.attach.istio.targetRefs $v.attach.istio.workloadSelector -}}
{{- fail "attach.istio: targetRefs and workloadSelector exclude each other" -}}
{{- end -}}
{{- if not (or $v.attach.istio.targetRefs $v.attach.istio.workloadSelector) -}}
{{- fail "attach.istio: set targetRefs or workloadSelector, or the filter would go into every proxy of the namespace" -}}
{{- end -}}
{{- if and (ne $v.attach.istio.context "GATEWAY") (not $v.attach.istio.workloadSelector) -}}
{{- fail "attach.istio: the sidecar contexts need a workloadSelector" -}}
{{- end -}}
{{- end -}}
{{- if and (has $v.attach.provider (list "istio" "envoy-gateway")) ($router.retry | default dict).per_try_seconds -}}
{{- fail "router.retry.per_try_seconds: attach.provider envoy can do this; Istio and Envoy Gateway objects cannot. They know answer_seconds, first_byte_seconds and total_seconds" -}}
{{- end -}}
{{- if and (eq $v.attach.provider "envoy-gateway") $router.passthrough -}}
{{- fail "router.passthrough: attach.provider envoy can do this; with envoy-gateway, write an HTTPRoute of your own for the paths that are no LLM API" -}}
{{- end -}}
{{- if and (eq $v.attach.provider "envoy-gateway") (not $v.attach.envoyGateway.gateway.name) -}}
{{- fail "attach.envoyGateway.gateway.name: which Gateway?" -}}
{{- end -}}
{{- if and (eq $v.mode "sidecar") (eq $v.attach.provider "envoy-gateway") (not $v.attach.envoyGateway.gatewayNamespaceMode) -}}
{{- fail "mode sidecar: Envoy Gateway runs its pods in the controller's namespace, where a pod cannot mount this release's ConfigMaps. Set provider.kubernetes.deploy.type to GatewayNamespace in Envoy Gateway's own configuration and confirm it with attach.envoyGateway.gatewayNamespaceMode: true, or use mode deployment" -}}
{{- end -}}
{{- if and (eq $v.mode "sidecar") (eq $v.attach.provider "none") -}}
{{- fail "mode sidecar: set attach.provider, there is no pod to be beside of otherwise" -}}
{{- end -}}
{{- if and $v.attach.envoy.caFile $v.attach.envoy.caSecret.name -}}
{{- fail "attach.envoy.caFile and attach.envoy.caSecret are both set: Envoy reads one file" -}}
{{- end -}}
{{- if and $v.attach.messageTimeout $v.router (ne $v.attach.provider "none") -}}
{{- $deadline := include "router-extproc.deadlineMs" . | int64 -}}
{{- if le (include "router-extproc.messageTimeoutMs" . | int64) $deadline -}}
{{- fail (printf "attach.messageTimeout: %s is not above router.limits.deadline_ms (%d): the gateway would not wait for decisions that the sidecar still makes in time, guards included. Leave it empty for the deadline and 2 s" $v.attach.messageTimeout $deadline) -}}
{{- end -}}
{{- end -}}
{{- if $v.attach.backup -}}
{{- if has $v.attach.provider (list "istio" "envoy-gateway") -}}
{{- include "router-extproc.validateBackup" . -}}
{{- else if or (ne $v.attach.provider "envoy") (ne $v.attach.envoy.profile "compatible") -}}
{{- fail "attach.backup is for the providers istio and envoy-gateway, and envoy with the profile compatible; the full one fails over by the routes' fallback" -}}
{{- end -}}
{{- end -}}
{{- if and (ne $v.attach.provider "none") (not $v.providerKeys.existingSecret) -}}
{{- range $name, $model := $router.models | default dict -}}
{{- if ($model.auth | default dict).env -}}
{{- fail (printf "router.models.%s.auth.env: set providerKeys.existingSecret to the Secret that holds the key %s" $name $model.auth.env) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of what the process reads only at its start. Everything in `router` but the store is left out: it is read anew while it runs. */}}
{{- define "router-extproc.staticChecksum" -}}
{{- $v := .Values -}}
{{- $store := (include "router-extproc.router" . | fromYaml).store | default dict -}}
{{- list $v.mode $v.grpc $v.admin $v.listenHost $v.logLevel $v.maxQueued $v.maxStreams $v.recordPrompts $v.state $v.device $v.gpu.enabled $v.drain $v.models $v.tls $v.tracing $v.threads $v.sessionSecret $v.redis $store | toJson | sha256sum -}}
{{- end -}}
