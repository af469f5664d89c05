//! Istio's and the Gateway API's traffic objects: their shape here, their meaning in one file per kind.
//! What they say ends in the nouns of `undermesh_model::traffic`.

#[allow(dead_code)]
mod common;
