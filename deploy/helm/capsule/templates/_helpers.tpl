{{- define "capsule.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- $name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "capsule.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "capsule.labels" -}}
{{ include "capsule.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "capsule.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else if .tag }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* One probe: what the values say, else TCP to the first port. Takes a list: root, probe of the values, fallback timing. */}}
{{- define "capsule.probe" -}}
{{- $root := index . 0 }}{{ $given := index . 1 }}{{ $timing := index . 2 }}
{{- if $given }}
{{- toYaml $given }}
{{- else -}}
tcpSocket:
  port: {{ (first $root.Values.ports).name }}
{{ toYaml $timing }}
{{- end }}
{{- end }}
