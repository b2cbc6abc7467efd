{{/* The name of the release's objects. Without fullnameOverride, this name contains "akrobateo". */}}
{{- define "akrobateo.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "akrobateo" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-akrobateo" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The label that selects the operator's pods. Only one operator can run in a namespace, so this label is enough. */}}
{{- define "akrobateo.selector" -}}
app.kubernetes.io/name: akrobateo
{{- end -}}

{{- define "akrobateo.labels" -}}
{{ include "akrobateo.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The label that selects the pods of the node agents. */}}
{{- define "akrobateo.agentSelector" -}}
app.kubernetes.io/name: akrobateo-agent
{{- end -}}

{{- define "akrobateo.agentLabels" -}}
{{ include "akrobateo.labels" . | replace (include "akrobateo.selector" .) (include "akrobateo.agentSelector" .) }}
{{- end -}}

{{- define "akrobateo.agentName" -}}
{{ include "akrobateo.fullname" . }}-agent
{{- end -}}

{{/* An annotation of pods that read the settings. A change of the settings changes the annotation, so new pods start. */}}
{{- define "akrobateo.settingsChecksum" -}}
checksum/settings: {{ include "akrobateo.settings" . | sha256sum }}
{{- end -}}

{{/* The name of the ConfigMap with the settings. The ConfigMap is immutable, so other settings need another name. */}}
{{- define "akrobateo.settingsName" -}}
{{ include "akrobateo.fullname" . }}-settings-{{ include "akrobateo.settings" . | sha256sum | trunc 10 }}
{{- end -}}

{{- define "akrobateo.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The namespace of the Services that the operator serves; "" means all namespaces. */}}
{{- define "akrobateo.servicesNamespace" -}}
{{- .Values.settings.watchNamespace | default "" -}}
{{- end -}}

{{/* The operator's name in its labels, field manager and Lease. */}}
{{- define "akrobateo.instance" -}}
{{- .Values.settings.instance | default "akrobateo" -}}
{{- end -}}

{{/* The image of the proxies; "" means the operator's default. If the operator's image is from another
registry, the image of the proxies must be from the same registry. */}}
{{- define "akrobateo.lbImage" -}}
{{- if not .Values.dedicated.enabled -}}
{{- else if .Values.settings.lbImage -}}
{{- .Values.settings.lbImage -}}
{{- else if ne .Values.image.repository "ghcr.io/akrobateo/akrobateo" -}}
{{- include "akrobateo.siblingImage" (dict "root" . "suffix" "lb" "value" "settings.lbImage") -}}
{{- end -}}
{{- end -}}

{{/* The image of the node agents. */}}
{{- define "akrobateo.agentImage" -}}
{{- .Values.agent.image | default (include "akrobateo.siblingImage" (dict "root" . "suffix" "agent" "value" "agent.image")) -}}
{{- end -}}

{{/* Another image with the operator's tag, from the registry of the operator's image. Argument: a dict with root, the
suffix of the image's name, and the value that sets another image. */}}
{{- define "akrobateo.siblingImage" -}}
{{- $image := .root.Values.image -}}
{{- if not (hasSuffix "/akrobateo" $image.repository) -}}
{{- fail (printf "image.repository is %q, but %s is not set; set it to the image of akrobateo-%s in your registry" $image.repository .value .suffix) -}}
{{- end -}}
{{- printf "%s-%s:%s" $image.repository .suffix ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}

{{/* The namespace of the proxies; "" means all namespaces. */}}
{{- define "akrobateo.proxiesNamespace" -}}
{{- if eq (.Values.settings.lbNamespace | default "") "@service" -}}
{{- include "akrobateo.servicesNamespace" . -}}
{{- else -}}
{{- .Values.settings.lbNamespace | default "akrobateo-proxies" -}}
{{- end -}}
{{- end -}}

{{/* Rules for Services, in the namespaces that the operator watches. */}}
{{- define "akrobateo.serviceRules" -}}
- apiGroups: [""]
  resources: [services/status]
  verbs: [patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Rules for proxies. Server-side apply needs patch, and also create if the object does not exist. */}}
{{- define "akrobateo.proxyRules" -}}
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
{{- end -}}

{{/* Rules to detect kube-proxy in IPVS mode, and programs that replace kube-proxy. In clusters with IPVS mode or such a
program, the operator uses ipMode Proxy. */}}
{{- define "akrobateo.kubeProxyRules" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [kube-proxy, kube-proxy-config, cilium-config]
  verbs: [get]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- end -}}

{{/* Rules to delete proxies in the namespaces of formerLbNamespaces. */}}
{{- define "akrobateo.formerProxyRules" -}}
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [list, watch, delete]
{{- end -}}

{{/* Rules for the Lease, and for the Leases of the node agents. The replica that holds the Lease is active. */}}
{{- define "akrobateo.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch, create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "akrobateo.instance" . | quote }}]
  verbs: [get, update]
{{- end -}}

{{/* Rules for the node agents in their own namespace. An agent that ends reads its DaemonSet. If the DaemonSet no longer
runs an agent on the node, the agent removes its rules and its Lease. */}}
{{- define "akrobateo.agentRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [daemonsets]
  resourceNames: [{{ include "akrobateo.agentName" . | quote }}]
  verbs: [get]
{{- end -}}

{{/* A rule of a NetworkPolicy, which allows the peers in "from" to connect to a port. An empty "from" would allow every
client, so without peers the template returns no rule. Argument: a dict with from and port. */}}
{{- define "akrobateo.scrapeRule" -}}
{{- with .from -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - protocol: TCP
      port: {{ $.port }}
{{- end -}}
{{- end -}}

{{/* A Role, and its binding to a ServiceAccount. Argument: a dict with root, account, labels, name, namespace and
rules. */}}
{{- define "akrobateo.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- .labels | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- .labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}
