/*
 * What libtracecmd needs for what the tables hold: every event of a trace.dat in time order, with its time, CPU, thread and every field
 * that can be read as a number. Nothing is kept, nothing is printed but the number of events and a sum of their fields.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trace-cmd.h>

#define NO_NUMBER (TEP_FIELD_IS_ARRAY | TEP_FIELD_IS_DYNAMIC | TEP_FIELD_IS_STRING)

struct totals {
	struct tep_handle *tep;
	uint64_t events;
	uint64_t header;
	uint64_t numbers;
};

/* All fields but those that kprobes add, which the tables leave out as well. */
static int is_left_out(const struct tep_format_field *field)
{
	return field->name[0] == '_' && field->name[1] == '_' &&
	       (!strcmp(field->name, "__probe_ip") || !strcmp(field->name, "__probe_func") || !strcmp(field->name, "__probe_ret_ip"));
}

static int read_event(struct tracecmd_input *input, struct tep_record *record, int cpu, void *data)
{
	struct totals *totals = data;
	struct tep_event *event = tep_find_event_by_record(totals->tep, record);

	(void)input;
	totals->events++;
	totals->header += record->ts + cpu + tep_data_pid(totals->tep, record);
	for (struct tep_format_field *field = event ? event->format.fields : NULL; field; field = field->next) {
		unsigned long long value;

		/* The sum is over plain numbers alone: a descriptor of a string is read as one, too, and is none. */
		if (!is_left_out(field) && !tep_read_number_field(field, record->data, &value) && !(field->flags & NO_NUMBER))
			totals->numbers += value;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct totals totals;
	struct tracecmd_input *input = argc == 2 ? tracecmd_open(argv[1], TRACECMD_FL_LOAD_NO_PLUGINS) : NULL;

	if (!input)
		return 1;
	totals.tep = tracecmd_get_tep(input);
	if (tracecmd_iterate_events(input, NULL, 0, read_event, &totals))
		return 1;
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", totals.events, totals.numbers, totals.header);
	tracecmd_close(input);
	return 0;
}
