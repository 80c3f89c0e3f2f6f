"""Networks: those of the catalog, how weights are drawn, the dropout that can be replayed."""
