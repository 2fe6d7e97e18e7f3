/*
 * What libtracecmd needs at least for what the tables hold: every event of a trace.dat in time order, with its time, CPU, thread and
 * every field that can be read as a number. Nothing is kept, nothing is printed but the number of events and a sum of their fields.
 *
 * The fields of each event are listed once at the start, so that a record costs no search for its format.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trace-cmd.h>

#define EVENTS 65536	/* common_type has 16 bits */
#define NO_NUMBER (TEP_FIELD_IS_ARRAY | TEP_FIELD_IS_DYNAMIC | TEP_FIELD_IS_STRING)

struct layout {
	int count;
	struct tep_format_field *fields[];
};

struct totals {
	struct tep_handle *tep;
	struct layout *layouts[EVENTS];
	uint64_t events;
	uint64_t header;
	uint64_t numbers;
};

static int read_event(struct tracecmd_input *input, struct tep_record *record, int cpu, void *data)
{
	struct totals *totals = data;
	struct layout *layout = totals->layouts[tep_data_type(totals->tep, record) & (EVENTS - 1)];

	(void)input;
	totals->events++;
	totals->header += record->ts + cpu + tep_data_pid(totals->tep, record);
	for (int i = 0; layout && i < layout->count; i++) {
		unsigned long long value;

		/* The sum is over plain numbers alone: a descriptor of a string is read as one, too, and is none. */
		if (!tep_read_number_field(layout->fields[i], record->data, &value) && !(layout->fields[i]->flags & NO_NUMBER))
			totals->numbers += value;
	}
	return 0;
}

/* All fields of an event but those that kprobes add, which the tables leave out as well. */
static struct layout *layout_of(struct tep_event *event)
{
	struct layout *layout = calloc(1, sizeof(*layout) + event->format.nr_fields * sizeof(layout->fields[0]));

	if (!layout)
		exit(2);
	for (struct tep_format_field *field = event->format.fields; field; field = field->next)
		if (strcmp(field->name, "__probe_ip") && strcmp(field->name, "__probe_func") && strcmp(field->name, "__probe_ret_ip"))
			layout->fields[layout->count++] = field;
	return layout;
}

int main(int argc, char **argv)
{
	static struct totals totals;
	struct tracecmd_input *input = argc == 2 ? tracecmd_open(argv[1], TRACECMD_FL_LOAD_NO_PLUGINS) : NULL;
	struct tep_event **events;

	if (!input)
		return 1;
	totals.tep = tracecmd_get_tep(input);
	events = tep_list_events(totals.tep, TEP_EVENT_SORT_ID);
	for (int i = 0; events && events[i]; i++)
		totals.layouts[events[i]->id & (EVENTS - 1)] = layout_of(events[i]);
	if (tracecmd_iterate_events(input, NULL, 0, read_event, &totals))
		return 1;
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", totals.events, totals.numbers, totals.header);
	tracecmd_close(input);
	return 0;
}
