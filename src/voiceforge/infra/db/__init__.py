"""The database: tables, transactions, and one module per noun. SQL is written nowhere else."""
