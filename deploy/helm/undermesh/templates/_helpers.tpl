{{/* The image, by digest where one is given. */}}
{{- define "undermesh.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of every object; `component` is what the pods are chosen by. */}}
{{- define "undermesh.labels" -}}
app.kubernetes.io/name: undermesh
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "undermesh.selector" -}}
app.kubernetes.io/name: undermesh
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* Configuration files. What the user sets wins. */}}
{{- define "undermesh.agent.settings" -}}
{{- $own := printf "https://undermesh-controller.%s.svc:15012" .Release.Namespace -}}
{{- $settings := dict
  "source" .Values.agent.source
  "caAddress" (.Values.agent.caAddress | default $own)
  "trustDomain" .Values.trustDomain
  "cluster" .Values.cluster
  "rootNamespace" .Values.rootNamespace
  "startupGateExempt" (list "kube-system" .Release.Namespace)
  "handoverExit" false
  "logFormat" "json"
-}}
{{- if eq .Values.agent.source "controller" -}}
{{- if not .Values.controller.enabled -}}
{{- fail "agent.source: controller needs controller.enabled" -}}
{{- end -}}
{{- $_ := set $settings "controllerAddresses" (list $own) -}}
{{- end -}}
{{- mergeOverwrite $settings .Values.agent.settings | toYaml -}}
{{- end -}}

{{- define "undermesh.controller.settings" -}}
{{- $settings := dict
  "namespace" .Release.Namespace
  "trustDomain" .Values.trustDomain
  "rootNamespace" .Values.rootNamespace
  "logFormat" "json"
-}}
{{- if eq .Values.agent.source "controller" -}}
{{- $_ := set $settings "distribute" true -}}
{{- end -}}
{{- mergeOverwrite $settings .Values.controller.settings | toYaml -}}
{{- end -}}

{{/* What is followed (agent/control/src/kinds.rs), and nothing to write: by agents, or by the controller for them. */}}
{{- define "undermesh.reads" -}}
- apiGroups: [""]
  resources: [configmaps, namespaces, nodes, pods, serviceaccounts, services]
  verbs: [get, list, watch]
{{- with .Values.agent.secretNames }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toYaml . | nindent 2 }}
  verbs: [get, list, watch]
{{- end }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [node.k8s.io]
  resources: [runtimeclasses]
  verbs: [get, list, watch]
- apiGroups: [security.istio.io]
  resources: [authorizationpolicies, peerauthentications, requestauthentications]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [destinationrules, serviceentries, virtualservices, workloadentries]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies, grpcroutes, httproutes, referencegrants, tcproutes, tlsroutes]
  verbs: [get, list, watch]
- apiGroups: [undermesh.io]
  resources: [meshconfigs, ratelimitpolicies]
  verbs: [get, list, watch]
# That there are new kinds.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
{{- end -}}
