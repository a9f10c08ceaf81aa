from django.db import migrations, models


class Migration(migrations.Migration):
    """One more word for the basis of a cost; no row changes."""

    dependencies = [("execution", "0011_session_index")]

    operations = [
        migrations.AlterField(
            "execution",
            "cost_basis",
            models.CharField(blank=True, help_text="priced, free, at_least or unknown", max_length=20),
        ),
    ]
