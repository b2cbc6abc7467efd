{{/* The name of the release's objects: akrobateo, unless the release is called otherwise. */}}
{{- define "akrobateo.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "akrobateo" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-akrobateo" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By which the operator's pods are found. One operator a namespace: it holds the Lease of that name. */}}
{{- define "akrobateo.selector" -}}
app.kubernetes.io/name: akrobateo
{{- end -}}

{{- define "akrobateo.labels" -}}
{{ include "akrobateo.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "akrobateo.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The namespace of Services, "" for all of them. */}}
{{- define "akrobateo.servicesNamespace" -}}
{{- .Values.settings.watchNamespace | default "" -}}
{{- end -}}

{{/* The namespace of the proxies, "" for all of them. */}}
{{- define "akrobateo.proxiesNamespace" -}}
{{- if eq (.Values.settings.lbNamespace | default "") "@service" -}}
{{- include "akrobateo.servicesNamespace" . -}}
{{- else -}}
{{- .Values.settings.lbNamespace | default .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* Rules: what is done with Services, wherever they may be. */}}
{{- define "akrobateo.serviceRules" -}}
- apiGroups: [""]
  resources: [services/status]
  verbs: [patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Rules: what is done with proxies. create belongs to patch: server-side apply of what doesn't exist yet asks for both. */}}
{{- define "akrobateo.proxyRules" -}}
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- end -}}

{{/* Rules: the Lease by which one replica leads. */}}
{{- define "akrobateo.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [akrobateo]
  verbs: [get, update]
{{- end -}}

{{/* A binding's end: to the operator's ServiceAccount. */}}
{{- define "akrobateo.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "akrobateo.fullname" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* A Role with its binding: dict root, name, namespace, rules. */}}
{{- define "akrobateo.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "akrobateo.labels" .root | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "akrobateo.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
{{ include "akrobateo.subjects" .root }}
{{- end -}}
