//! `kubectl rollout status` (kubectl 1.32, `pkg/polymorphichelpers/rollout_status.go`), word for word.
