{{/* spec of the PrometheusRule: also a rules file as it stands. {{ "{{" }} is Prometheus' own template. */}}
{{- define "router-extproc.rules" -}}
{{- $t := .Values.metrics.prometheusRule.thresholds -}}
{{- $ns := printf "namespace=%q" .Release.Namespace -}}
groups:
  - name: {{ include "router-extproc.fullname" . }}
    rules:
      - alert: RouterDown
        expr: absent(mom_config_generation{ {{- $ns -}} })
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: No sidecar is being scraped.
          description: Requests go to the default model if the filter fails open, and fail if not.
      - alert: RouterConfigRefused
        expr: min by (pod) (mom_config_last_reload_successful{ {{- $ns -}} }) == 0
        for: 2m
        labels: {severity: warning}
        annotations:
          summary: {{ "\"{{ $labels.pod }} refused the newest router.yaml; the last good one serves on.\"" }}
          description: The pod's log and its /config page name every mistake with its line.
      - alert: RouterErrors
        expr: >-
          sum(rate(mom_requests_failed_total{ {{- $ns -}} }[5m]))
          / (sum(rate(mom_decisions_total{ {{- $ns -}} }[5m])) + sum(rate(mom_requests_failed_total{ {{- $ns -}} }[5m])))
          > {{ $t.failedShare }}
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: {{ "\"{{ $value | humanizePercentage }} of the requests went to the default model because of an error of the sidecar.\"" }}
      - alert: RouterStreamsUnusable
        expr: sum by (mode) (increase(mom_streams_unusable_total{ {{- $ns -}} }[10m])) > 0
        labels: {severity: critical}
        annotations:
          summary: {{ "\"A gateway sends the body as {{ $labels.mode }}: no request can be routed by its content.\"" }}
          description: The filter needs STREAMED with send_body_without_waiting_for_header_response, BUFFERED, or FULL_DUPLEX_STREAMED.
      - alert: RouterSlow
        expr: histogram_quantile(0.99, sum by (le) (rate(mom_decision_duration_seconds_bucket{ {{- $ns -}} }[5m]))) > {{ $t.decisionSeconds }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: {{ "\"1 of 100 decisions takes longer than {{ $value | humanizeDuration }}.\"" }}
          description: More pods, more CPU, or a GPU.
      - alert: RouterSignalsAbsent
        expr: >-
          sum(rate(mom_signals_absent_total{ {{- $ns -}} }[5m])) / sum(rate(mom_decisions_total{ {{- $ns -}} }[5m])) > {{ $t.absentShare }}
        for: 10m
        labels: {severity: warning}
        annotations:
          summary: {{ `"{{ printf \"%.2f\" $value }} signals per decision are missing."` }}
          description: Late or overloaded classifiers send requests to the default model; mom_signals_absent_total says which and why.
      - alert: RouterMostlyDefault
        expr: >-
          sum(rate(mom_decisions_total{ {{- $ns -}}, band="default"}[30m])) / sum(rate(mom_decisions_total{ {{- $ns -}} }[30m])) > {{ $t.defaultShare }}
        for: 30m
        labels: {severity: info}
        annotations:
          summary: {{ "\"{{ $value | humanizePercentage }} of the requests match no route with confidence.\"" }}
      - alert: RouterModelErrors
        expr: >-
          sum by (model) (rate(mom_outcomes_total{ {{- $ns -}}, error_type=~"5..|stream_broken"}[5m]))
          / sum by (model) (rate(mom_outcomes_total{ {{- $ns -}} }[5m])) > {{ $t.modelErrorShare }}
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: {{ "\"{{ $value | humanizePercentage }} of the answers of {{ $labels.model }} are 5xx after all attempts, or broke off.\"" }}
      {{- if .Values.metrics.prometheusRule.gatewayAlerts }}
      - alert: RouterBypassed
        expr: sum by (namespace) (rate(envoy_http_ext_proc_failure_mode_allowed[5m])) > 0
        for: 5m
        labels: {severity: warning}
        annotations:
          summary: The gateway passes requests on without the sidecar's decision.
      {{- end }}
{{- end -}}
