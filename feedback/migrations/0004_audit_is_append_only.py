from django.db import migrations

FORWARD = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit events are append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON feedback_auditevent
  FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_is_never_truncated BEFORE TRUNCATE ON feedback_auditevent
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
"""

REVERSE = """
DROP TRIGGER audit_is_append_only ON feedback_auditevent;
DROP TRIGGER audit_is_never_truncated ON feedback_auditevent;
DROP FUNCTION refuse_audit_change();
"""


class Migration(migrations.Migration):
    dependencies = [("feedback", "0003_roles")]
    operations = [migrations.RunSQL(FORWARD, REVERSE)]
