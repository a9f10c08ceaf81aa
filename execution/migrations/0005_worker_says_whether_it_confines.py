"""Every worker says whether CLIs get a sandbox on its host."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("execution", "0004_warm_workers")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="unconfined",
            field=models.TextField(blank=True, db_default="", help_text="why CLIs get no sandbox on this host; empty: they do"),
        ),
    ]
