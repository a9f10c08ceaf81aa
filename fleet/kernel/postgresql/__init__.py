"""The database backend that `DATABASES` names."""
