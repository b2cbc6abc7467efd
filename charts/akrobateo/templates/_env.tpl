{{/* The operator's settings as environment variables, without settings that are null or have the default. */}}
{{- define "akrobateo.env" -}}
{{- $settings := .Values.settings }}
{{- include "akrobateo.variable" (list "WATCH_NAMESPACE" $settings.watchNamespace) }}
{{- include "akrobateo.variable" (list "LB_NAMESPACE" $settings.lbNamespace) }}
{{- include "akrobateo.variable" (list "FORMER_LB_NAMESPACES" (join "," $settings.formerLbNamespaces | default nil)) }}
{{- include "akrobateo.variable" (list "INSTANCE" $settings.instance) }}
{{- include "akrobateo.variable" (list "LB_IMAGE" (include "akrobateo.lbImage" . | default nil)) }}
{{- include "akrobateo.variable" (list "DEFAULT_CLASS" $settings.defaultClass) }}
{{- include "akrobateo.variable" (list "RESERVED_PORTS" $settings.reservedPorts) }}
{{- include "akrobateo.variable" (list "ADDRESS_TYPES" (join "," $settings.addressTypes | default nil)) }}
{{- include "akrobateo.variable" (list "NODE_ADDRESS_ANNOTATION" $settings.nodeAddressAnnotation) }}
{{- include "akrobateo.variable" (list "IGNORE_EXCLUDE_LABEL" $settings.ignoreExcludeLabel) }}
{{- include "akrobateo.variable" (list "IP_MODE" $settings.ipMode) }}
{{- include "akrobateo.variable" (list "NODE_SELECTOR" $settings.nodeSelector) }}
{{- include "akrobateo.variable" (list "TOLERATIONS" (kindIs "invalid" $settings.tolerations | ternary nil (toJson $settings.tolerations))) }}
{{- include "akrobateo.variable" (list "WORKLOAD" $settings.workload) }}
{{- include "akrobateo.variable" (list "REPLICAS" $settings.replicas) }}
{{- include "akrobateo.variable" (list "ALLOWED_TOLERATIONS" (kindIs "invalid" $settings.allowedTolerations | ternary nil (toJson $settings.allowedTolerations))) }}
{{- include "akrobateo.variable" (list "PRIORITY_CLASS" $settings.priorityClass) }}
{{- include "akrobateo.variable" (list "ALLOWED_PRIORITY_CLASSES" (join "," $settings.allowedPriorityClasses | default nil)) }}
{{- include "akrobateo.variable" (list "MAX_PORTS" $settings.maxPorts) }}
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
