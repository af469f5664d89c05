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
  "source" "kubernetes"
  "caAddress" (.Values.agent.caAddress | default $own)
  "trustDomain" .Values.trustDomain
  "cluster" .Values.cluster
  "rootNamespace" .Values.rootNamespace
  "startupGateExempt" (list "kube-system" .Release.Namespace)
  "handoverExit" false
  "logFormat" "json"
-}}
{{- mergeOverwrite $settings .Values.agent.settings | toYaml -}}
{{- end -}}

{{- define "undermesh.controller.settings" -}}
{{- $settings := dict
  "namespace" .Release.Namespace
  "trustDomain" .Values.trustDomain
  "rootNamespace" .Values.rootNamespace
  "logFormat" "json"
-}}
{{- mergeOverwrite $settings .Values.controller.settings | toYaml -}}
{{- end -}}
