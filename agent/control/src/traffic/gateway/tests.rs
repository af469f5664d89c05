//! Manifests in, nouns and findings out.
