{{/* The operator's settings as environment variables. It omits values that are null or the operator's default. */}}
{{- define "akrobateo.env" -}}
{{- with .Values.settings }}
{{- include "akrobateo.variable" (list "WATCH_NAMESPACE" .watchNamespace) }}
{{- include "akrobateo.variable" (list "LB_NAMESPACE" .lbNamespace) }}
{{- include "akrobateo.variable" (list "LB_IMAGE" .lbImage) }}
{{- include "akrobateo.variable" (list "DEFAULT_CLASS" .defaultClass) }}
{{- include "akrobateo.variable" (list "RESERVED_PORTS" .reservedPorts) }}
{{- include "akrobateo.variable" (list "ADDRESS_TYPES" (kindIs "invalid" .addressTypes | ternary nil (join "," .addressTypes))) }}
{{- include "akrobateo.variable" (list "IP_MODE" .ipMode) }}
{{- include "akrobateo.variable" (list "NODE_SELECTOR" .nodeSelector) }}
{{- include "akrobateo.variable" (list "TOLERATIONS" (kindIs "invalid" .tolerations | ternary nil (toJson .tolerations))) }}
{{- include "akrobateo.variable" (list "WORKLOAD" .workload) }}
{{- include "akrobateo.variable" (list "REPLICAS" .replicas) }}
{{- include "akrobateo.variable" (list "PRIORITY_CLASS" .priorityClass) }}
{{- end }}
{{- if ne (int .Values.port) 8080 }}
{{- include "akrobateo.variable" (list "HTTP_ADDRESS" (printf "[::]:%d" (int .Values.port))) }}
{{- end }}
{{- if ne .Values.logLevel "info" }}
{{- include "akrobateo.variable" (list "RUST_LOG" .Values.logLevel) }}
{{- end }}
{{- end -}}

{{- define "akrobateo.variable" -}}
{{- $value := index . 1 -}}
{{- if not (kindIs "invalid" $value) }}
- name: {{ index . 0 }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}
