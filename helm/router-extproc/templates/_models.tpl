{{/*
What attaching by Istio or Envoy Gateway needs of one model of router.yaml, as YAML.
Call: list root name model. The defaults by provider are those of the sidecar, in router_extproc/config/providers.py.
*/}}
{{- define "router-extproc.model" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $model := index . 2 -}}
{{- $at := printf "router.models.%s" $name -}}
{{- $only := "attach.provider envoy can do this; Istio and Envoy Gateway objects cannot" -}}
{{- if $model.paths -}}{{- fail (printf "%s.paths: %s" $at $only) -}}{{- end -}}
{{- if and (eq ($model.provider | default "") "azure_openai") $model.api_version -}}
{{- fail (printf "%s.api_version: %s. Without it Azure's /openai/v1 API is used" $at $only) -}}
{{- end -}}
{{- if ($model.auth | default dict).file -}}{{- fail (printf "%s.auth.file: %s; use auth.env" $at $only) -}}{{- end -}}
{{- $url := urlParse $model.url -}}
{{- $host := regexReplaceAll ":[0-9]+$" $url.host "" -}}
{{- $tls := eq $url.scheme "https" -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default ($tls | ternary "443" "80") -}}
{{- $provider := $model.provider | default "openai" -}}
{{- $header := dict "openai" "authorization" "vllm" "authorization" "anthropic" "x-api-key" "azure_openai" "api-key" | dig $provider "authorization" -}}
{{- $auth := $model.auth | default dict -}}
{{- $header = $auth.header | default $header -}}
{{- $bearer := eq $header "authorization" | ternary "Bearer " "" -}}
{{- $labels := splitList "." $host -}}
{{- $ip := or (regexMatch "^[0-9.]+$" $host) (contains "[" $host) -}}
{{- /* Its Backends take no name of one label, and its proxies may run in another namespace: a Service of this one. */ -}}
{{- $short := and (eq $root.Values.attach.provider "envoy-gateway") (eq (len $labels) 1) (not $ip) -}}
{{- $labels = $short | ternary (list $host $root.Release.Namespace "svc") $labels -}}
{{- $internal := and (ge (len $labels) 3) (eq (index $labels (min 2 (sub (len $labels) 1) | int)) "svc") -}}
{{- $service := and $internal (not $tls) -}}
{{- /* Istio names a Service's cluster by its whole name, however short the url has it. */ -}}
{{- $fqdn := and $internal (eq (len $labels) 3) | ternary (printf "%s.%s" (join "." $labels) $root.Values.clusterDomain) $host -}}
name: {{ $name | quote }}
host: {{ $host | quote }}
internal: {{ $internal }}
fqdn: {{ $fqdn | quote }}
outbound: {{ printf "outbound|%s||%s" $port $fqdn | quote }}
ip: {{ $ip }}
port: {{ $port }}
tls: {{ $tls }}
authority: {{ has $port (list ($tls | ternary "443" "80")) | ternary $host (printf "%s:%s" $host $port) | quote }}
prefix: {{ $url.path | trimSuffix "/" | default (eq $provider "azure_openai" | ternary "/openai/v1" "/v1") | quote }}
upstream: {{ $model.upstream_model | default $name | quote }}
env: {{ $auth.env | default "" | quote }}
passthrough: {{ $auth.passthrough | default false }}
# What the client did not send: that of ANTHROPIC_VERSION in router_extproc/config/envoy_clusters.py.
anthropicVersion: {{ eq $provider "anthropic" | ternary ($model.api_version | default "2023-06-01") "" | quote }}
keyHeader: {{ $header | quote }}
keyPrefix: {{ hasKey $auth "prefix" | ternary ($auth.prefix | default "") $bearer | quote }}
service: {{ $service | ternary (index $labels 0) "" | quote }}
namespace: {{ $service | ternary (index $labels (min 1 (sub (len $labels) 1) | int)) "" | quote }}
{{- end -}}

{{/*
End of the name of an object of one model, for the object itself and for what refers to it. A name that is too long, or
no name of Kubernetes, or one that another object here could have, is cut and gets a hash: no two are the same.
Call: list root name role, where role is "", "-backup" or "-path".
*/}}
{{- define "router-extproc.modelSuffix" -}}
{{- $name := index . 1 -}}
{{- $role := index . 2 -}}
{{- $room := sub 62 (add (len (include "router-extproc.fullname" (index . 0))) (len $role)) | int -}}
{{- $plain := and (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name) (le (len $name) $room) -}}
{{- if and $plain (ne $name "sidecar") (not (hasSuffix "-backup" $name)) -}}
-{{ $name }}{{ $role }}
{{- else -}}
{{- $slug := $name | lower | replace "." "-" | replace "_" "-" | trunc (min 40 (sub $room 9) | int) | trimSuffix "-" -}}
-{{ $slug }}-{{ sha256sum $name | trunc 8 }}{{ $role }}
{{- end -}}
{{- end -}}

{{/* Where clients call each API, below /v1: API_PATHS in router_extproc/config/providers.py. As JSON. */}}
{{- define "router-extproc.apis" -}}
{{- list "chat/completions" "completions" "responses" "embeddings" "messages" | toJson -}}
{{- end -}}

{{/* What `auth.passthrough` hands on: CLIENT_CREDENTIALS in router_extproc/config/envoy_clusters.py. As JSON. */}}
{{- define "router-extproc.clientCredentials" -}}
{{- list "authorization" "x-api-key" "api-key" "openai-organization" "openai-project" | toJson -}}
{{- end -}}

{{/* Headers that carry a credential: none of one provider may reach another. Call: list root */}}
{{- define "router-extproc.credentialHeaders" -}}
{{- $headers := concat (include "router-extproc.clientCredentials" . | fromJsonArray) (list "x-goog-api-key" "proxy-authorization" "cookie") -}}
{{- range $name, $model := (include "router-extproc.router" . | fromYaml).models -}}
{{- with ($model.auth | default dict).header -}}{{- $headers = append $headers . -}}{{- end -}}
{{- end -}}
{{- $headers | uniq | toJson -}}
{{- end -}}

{{/* What a gateway answers itself when it does not know the only models that may take a request. As the compatible profile. */}}
{{- define "router-extproc.unknownModel" -}}
{{- $message := "the gateway does not know the model of this request yet" -}}
{{- dict "error" (dict "message" $message "type" "server_error" "param" nil "code" nil) | toJson -}}
{{- end -}}

{{- define "router-extproc.defaultModel" -}}
{{- $default := (include "router-extproc.router" . | fromYaml).default -}}
{{- kindIs "string" $default | ternary $default (first (kindIs "string" $default | ternary (list "") $default)) -}}
{{- end -}}

{{/* Whether a model may be another's backup at all. Rendered before anything is attached. Call: root */}}
{{- define "router-extproc.validateBackup" -}}
{{- $root := . -}}
{{- $models := (include "router-extproc.router" . | fromYaml).models -}}
{{- range $name, $others := .Values.attach.backup -}}
{{- range prepend $others $name -}}
{{- if not (hasKey $models .) -}}{{- fail (printf "attach.backup.%s: unknown model %q" $name .) -}}{{- end -}}
{{- end -}}
{{- $model := include "router-extproc.model" (list $root $name (get $models $name)) | fromYaml -}}
{{- range $others -}}
{{- $other := include "router-extproc.model" (list $root . (get $models .)) | fromYaml -}}
{{- /* The route, which holds for all of them, also says whether the client's own credentials go on. */ -}}
{{- $same := true -}}
{{- range list "upstream" "env" "prefix" "keyHeader" "keyPrefix" "passthrough" -}}
{{- if ne (get $other .) (get $model .) -}}{{- $same = false -}}{{- end -}}
{{- end -}}
{{- if not $same -}}
{{- fail (printf "attach.backup.%s: %s has another upstream name, key or path: it would refuse the request, or get credentials that are not for it" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
