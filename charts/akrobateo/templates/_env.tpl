{{/* The settings that the operator and the node agents share, as lines of a ConfigMap, without settings that are null. */}}
{{- define "akrobateo.settings" -}}
{{- $settings := .Values.settings }}
{{- include "akrobateo.setting" (list "WATCH_NAMESPACE" $settings.watchNamespace) }}
{{- include "akrobateo.setting" (list "LB_NAMESPACE" $settings.lbNamespace) }}
{{- include "akrobateo.setting" (list "INSTANCE" $settings.instance) }}
{{- include "akrobateo.setting" (list "DEFAULT_CLASS" $settings.defaultClass) }}
{{- include "akrobateo.setting" (list "RESERVED_PORTS" $settings.reservedPorts) }}
{{- include "akrobateo.setting" (list "ADDRESS_TYPES" (join "," $settings.addressTypes | default nil)) }}
{{- include "akrobateo.setting" (list "NODE_ADDRESS_ANNOTATION" $settings.nodeAddressAnnotation) }}
{{- include "akrobateo.setting" (list "IGNORE_EXCLUDE_LABEL" $settings.ignoreExcludeLabel) }}
{{- include "akrobateo.setting" (list "IP_MODE" $settings.ipMode) }}
{{- include "akrobateo.setting" (list "NODE_SELECTOR" $settings.nodeSelector) }}
{{- include "akrobateo.setting" (list "TOLERATIONS" (kindIs "invalid" $settings.tolerations | ternary nil (toJson $settings.tolerations))) }}
{{- include "akrobateo.setting" (list "ALLOWED_TOLERATIONS" (kindIs "invalid" $settings.allowedTolerations | ternary nil (toJson $settings.allowedTolerations))) }}
{{- include "akrobateo.setting" (list "WORKLOAD" (include "akrobateo.workload" . | default nil)) }}
{{- include "akrobateo.setting" (list "DEDICATED" (.Values.dedicated.enabled | ternary nil false)) }}
{{- include "akrobateo.setting" (list "CLIENT_ADDRESS" $settings.clientAddress) }}
{{- include "akrobateo.setting" (list "REPLICAS" $settings.replicas) }}
{{- include "akrobateo.setting" (list "PRIORITY_CLASS" $settings.priorityClass) }}
{{- include "akrobateo.setting" (list "ALLOWED_PRIORITY_CLASSES" (join "," $settings.allowedPriorityClasses | default nil)) }}
{{- include "akrobateo.setting" (list "MAX_PORTS" $settings.maxPorts) }}
{{- end -}}

{{- define "akrobateo.setting" -}}
{{- $value := index . 1 -}}
{{- if not (kindIs "invalid" $value) }}
{{ index . 0 }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* The program that forwards Services without an annotation; "" means the default of the operator and the agents, which
is Shared. */}}
{{- define "akrobateo.workload" -}}
{{- $agents := .Values.agent.enabled -}}
{{- $dedicated := .Values.dedicated.enabled -}}
{{- if not (or $agents $dedicated) -}}
{{- fail "agent.enabled and dedicated.enabled are both false, so no program can forward Services; set at least one of them to true" -}}
{{- end -}}
{{- $workload := .Values.settings.workload | default ($agents | ternary "" "DaemonSet") -}}
{{- if and (eq $workload "Shared") (not $agents) -}}
{{- fail "settings.workload is Shared, but agent.enabled is false; set agent.enabled=true, or set settings.workload to DaemonSet or Deployment" -}}
{{- end -}}
{{- if and (has $workload (list "DaemonSet" "Deployment")) (not $dedicated) -}}
{{- fail (printf "settings.workload is %s, but dedicated.enabled is false; set settings.workload=Shared or dedicated.enabled=true" $workload) -}}
{{- end -}}
{{- $workload -}}
{{- end -}}

{{/* The settings that only the operator has, as environment variables, without settings that are null or have the
default. */}}
{{- define "akrobateo.env" -}}
{{- $settings := .Values.settings }}
{{- include "akrobateo.variable" (list "FORMER_LB_NAMESPACES" (join "," $settings.formerLbNamespaces | default nil)) }}
{{- include "akrobateo.variable" (list "LB_IMAGE" (include "akrobateo.lbImage" . | default nil)) }}
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

{{/* The settings that only the node agents have, as environment variables. */}}
{{- define "akrobateo.agentEnv" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: STATE_FILE
  value: /run/akrobateo/config.json
{{- $agent := .Values.agent }}
{{- include "akrobateo.variable" (list "POD_RANGES" (join "," $agent.podRanges | default nil)) }}
{{- include "akrobateo.variable" (list "MARK_BYTE" $agent.markByte) }}
{{- $name := include "akrobateo.agentName" . }}
{{- include "akrobateo.variable" (list "DAEMONSET" (eq $name "akrobateo-agent" | ternary nil $name)) }}
{{- include "akrobateo.variable" (list "WATCH_HOST_PORTS" ($agent.watchHostPorts | ternary nil false)) }}
{{- if or $agent.exposeMetrics (ne (int $agent.port) 8478) }}
{{- include "akrobateo.variable" (list "HTTP_ADDRESS" (printf "%s:%d" ($agent.exposeMetrics | ternary "[::]" "127.0.0.1") (int $agent.port))) }}
{{- end }}
{{- include "akrobateo.variable" (list "RUST_LOG" (eq .Values.logLevel "info" | ternary nil .Values.logLevel)) }}
{{- end -}}
