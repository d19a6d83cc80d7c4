"""One arm with one seed: what training, evaluation and cost need. It knows no study."""
