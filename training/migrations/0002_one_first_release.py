from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial")]

    operations = [
        migrations.AddConstraint(
            model_name="release",
            constraint=models.UniqueConstraint(
                fields=["previous"], nulls_distinct=False, name="one_release_follows_another"
            ),
        ),
    ]
